// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "context.hpp"

#if defined(__x86_64__)

// What a function must leave as it was: six registers and the stack's pointer.
extern "C" void emulated_switch_context(void** from, void* to);
__asm__(R"(
  .text
  .globl emulated_switch_context
  .type emulated_switch_context, @function
emulated_switch_context:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulated_switch_context, . - emulated_switch_context
)");

namespace emulated {
void make_context(context& c, std::byte* stack, std::size_t bytes, void (*begin)()) {
  // From the end: a return address of 0, where debuggers stop; `begin`; six registers.
  auto* const top = reinterpret_cast<void**>(stack + bytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(begin);
  c = top - 8;
}
void switch_context(context& from, context& to) { emulated_switch_context(&from, to); }
}  // namespace emulated

#else

namespace emulated {
void make_context(context& c, std::byte* stack, std::size_t bytes, void (*begin)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack;
  c.uc_stack.ss_size = bytes;
  makecontext(&c, begin, 0);
}
void switch_context(context& from, context& to) { swapcontext(&from, &to); }
}  // namespace emulated

#endif
