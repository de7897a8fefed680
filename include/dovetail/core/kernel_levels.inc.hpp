// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: included in a namespace by a header of kernels, for the file of loops that DOVETAIL_KERNELS names.
// It is compiled once per cpu_level, in a namespace and a target region of its own, on the vectors of that level
// (core/vectors.hpp, which the header includes) of DOVETAIL_KERNEL_LANES floats; `baseline` is always there:
//
//   namespace dovetail::compress::kernels {
//   #define DOVETAIL_KERNELS <dovetail/compress/kernels.inc.hpp>
//   #include <dovetail/core/kernel_levels.inc.hpp>
//
// What chooses among them: DOVETAIL_BY_LEVEL of core/dispatch.hpp.
#if defined(DOVETAIL_KERNELS)

namespace baseline {
using namespace simd::baseline;
#define DOVETAIL_KERNEL_LANES 4
#include DOVETAIL_KERNELS
#undef DOVETAIL_KERNEL_LANES
}  // namespace baseline

#if DOVETAIL_X86_LEVELS
DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX2)
namespace avx2 {
using namespace simd::avx2;
#define DOVETAIL_KERNEL_LANES 8
#include DOVETAIL_KERNELS
#undef DOVETAIL_KERNEL_LANES
}  // namespace avx2
DOVETAIL_TARGET_END

DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX512)
namespace avx512 {
using namespace simd::avx512;
#define DOVETAIL_KERNEL_LANES 16
#include DOVETAIL_KERNELS
#undef DOVETAIL_KERNEL_LANES
}  // namespace avx512
DOVETAIL_TARGET_END
#endif
#undef DOVETAIL_KERNELS

#endif
