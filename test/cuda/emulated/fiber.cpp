// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "fiber.hpp"

#include "memory.hpp"
#include "sanitizers.hpp"

#include <sys/mman.h>
#include <unistd.h>

#if EMULATED_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if EMULATED_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace emulated {
namespace {
constexpr std::size_t stack_bytes = std::size_t{256} << 10;  // memory only where it is touched
fiber* running = nullptr;
context outside;
[[maybe_unused]] void* outside_tsan = nullptr;
[[maybe_unused]] void* outside_fake_stack = nullptr;
[[maybe_unused]] void const* outside_stack = nullptr;
[[maybe_unused]] std::size_t outside_bytes = 0;
}  // namespace

fiber::fiber(void (*main)()) : main_(main), stack_(nullptr) {
  auto const guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const p = mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) fail("no memory for the stack of a thread");
  mprotect(p, guard, PROT_NONE);  // a stack that overflows ends the program
  stack_ = static_cast<std::byte*>(p) + guard;
  make_context(here_, stack_, stack_bytes, begin);
#if EMULATED_TSAN
  tsan_ = __tsan_create_fiber(0);
#endif
}

fiber::~fiber() {
#if EMULATED_TSAN
  __tsan_destroy_fiber(tsan_);
#endif
  auto const guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  munmap(stack_ - guard, guard + stack_bytes);
}

void fiber::begin() {
#if EMULATED_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &outside_stack, &outside_bytes);
#endif
  running->main_();
}

void fiber::resume() {
  running = this;
#if EMULATED_ASAN
  __sanitizer_start_switch_fiber(&outside_fake_stack, stack_, stack_bytes);
#elif EMULATED_TSAN
  outside_tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, 0);
#endif
  switch_context(outside, here_);
#if EMULATED_ASAN
  __sanitizer_finish_switch_fiber(outside_fake_stack, nullptr, nullptr);
#endif
}

void fiber::suspend() {
  fiber* const self = running;
#if EMULATED_ASAN
  __sanitizer_start_switch_fiber(&self->fake_stack_, outside_stack, outside_bytes);
#elif EMULATED_TSAN
  __tsan_switch_to_fiber(outside_tsan, 0);
#endif
  switch_context(self->here_, outside);
#if EMULATED_ASAN
  __sanitizer_finish_switch_fiber(self->fake_stack_, &outside_stack, &outside_bytes);
#endif
}

}  // namespace emulated
