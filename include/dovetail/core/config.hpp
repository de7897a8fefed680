// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The few macros of the library. None of them changes a type's layout.

// A rule is one function for the host and the device: nvcc needs to be told, other compilers not.
#if defined(__CUDACC__)
#define DOVETAIL_HD __host__ __device__
// Before a template whose argument says on which side it runs: nvcc would warn of the other one's functions.
#define DOVETAIL_ROW_FUNCTION _Pragma("nv_exec_check_disable")
#else
#define DOVETAIL_HD
#define DOVETAIL_ROW_FUNCTION
#endif

// Rules are called in the innermost loop; at -O2 the compiler must not decide otherwise.
#if defined(__GNUC__) || defined(__clang__)
#define DOVETAIL_HOST_INLINE inline __attribute__((always_inline))
#define DOVETAIL_NOINLINE __attribute__((noinline))
// Error paths: kept out of callers and optimized for size, which is a good part of what a program takes to compile.
#define DOVETAIL_COLD __attribute__((noinline, cold))
#define DOVETAIL_RESTRICT __restrict__
#else
#define DOVETAIL_HOST_INLINE inline
#define DOVETAIL_NOINLINE
#define DOVETAIL_COLD
#define DOVETAIL_RESTRICT
#endif
#define DOVETAIL_INLINE DOVETAIL_HD DOVETAIL_HOST_INLINE
