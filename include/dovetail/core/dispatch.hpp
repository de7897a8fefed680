// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// A program built with plain -O2 must get its machine's speed: kernels are compiled once per level, and the widest
// level that processor and operating system support is taken at run time. Every level gives the same bits.
#include <cstdint>

// Only GCC and Clang can compile one file for several instruction sets; nvcc's front end cannot.
#if defined(DOVETAIL_X86_LEVELS)  // 0: only what the program is compiled for
#elif (defined(__x86_64__) || defined(__i386__)) && defined(__SSE2__) && defined(__GNUC__) && !defined(__CUDACC__)
#define DOVETAIL_X86_LEVELS 1
#else
#define DOVETAIL_X86_LEVELS 0
#endif

// DOVETAIL_TARGET_BEGIN(features) … DOVETAIL_TARGET_END: functions between them may use these instructions. No standard
// header may be included in between: its inline functions would be compiled for a processor that may not be there.
#define DOVETAIL_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define DOVETAIL_TARGET_BEGIN(features) \
  DOVETAIL_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define DOVETAIL_TARGET_END DOVETAIL_PRAGMA(clang attribute pop)
#else
#define DOVETAIL_TARGET_BEGIN(features) \
  DOVETAIL_PRAGMA(GCC push_options)     \
  DOVETAIL_PRAGMA(GCC target(features))
#define DOVETAIL_TARGET_END DOVETAIL_PRAGMA(GCC pop_options)
#endif
// Before a short loop over vectors, whose elements are registers only without the loop. nvcc warns of what it skips.
#if defined(__CUDACC__)
#define DOVETAIL_UNROLL_4
#else
#define DOVETAIL_UNROLL_4 DOVETAIL_PRAGMA(GCC unroll 4)
#endif
// What the levels above the first are compiled for. One text each: a function is inlined only into those that may use
// all that it may use.
#define DOVETAIL_AVX2 "avx2,f16c,popcnt,bmi"
#define DOVETAIL_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c,popcnt,bmi"
// Where kernels lie in the namespaces baseline, avx2 and avx512 (core/kernel_levels.inc.hpp): the body of a function
// that returns `call` of the one of `level`. It asks, and there is no table of pointers: a program compiles the kernels
// that it calls.
#if DOVETAIL_X86_LEVELS
#define DOVETAIL_BY_LEVEL(call)                        \
  if (level == cpu_level::avx512) return avx512::call; \
  if (level == cpu_level::avx2) return avx2::call;     \
  return baseline::call
#else
#define DOVETAIL_BY_LEVEL(call) return baseline::call
#endif

namespace dovetail {

/// Instruction sets for which kernels are compiled, narrowest first.
enum class cpu_level : std::uint8_t {
  baseline,  ///< what the program was compiled for; 128-bit vectors
  avx2,      ///< with F16C
  avx512,    ///< F, BW, DQ, VL
};

/// The widest level that this processor supports.
inline cpu_level supported_cpu_level() {
#if DOVETAIL_X86_LEVELS
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("popcnt") &&
        __builtin_cpu_supports("bmi")))
    return cpu_level::baseline;
  // A virtual machine may have these without those: kernels of this level use both.
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
             ? cpu_level::avx512
             : cpu_level::avx2;
#else
  return cpu_level::baseline;
#endif
}

}  // namespace dovetail
