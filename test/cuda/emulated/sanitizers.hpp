// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// Which sanitizer this is compiled for, by any compiler.

#if defined(__SANITIZE_ADDRESS__)
#define EMULATED_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define EMULATED_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATED_ASAN 1
#elif __has_feature(thread_sanitizer)
#define EMULATED_TSAN 1
#endif
#endif
