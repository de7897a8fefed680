// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulated {

/// A place in a program that can be returned to, on a stack of its own. By hand where that is known: the C library's
/// functions ask the kernel for the signal mask each time, which takes longer than most threads of a kernel.
#if defined(__x86_64__)
using context = void*;  // the stack's pointer; registers are on the stack
#else
using context = ucontext_t;
#endif

/// A context that begins with `begin`, which never returns.
void make_context(context&, std::byte* stack, std::size_t bytes, void (*begin)());
/// Keeps this place in `from` and goes on at `to`.
void switch_context(context& from, context& to);

}  // namespace emulated
