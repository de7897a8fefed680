// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of demo, compiled once per cpu_level (demo_kernels.inc.hpp) and chosen at run time.
namespace dovetail::compress::demo_kernels {

#define DOVETAIL_DEMO_KERNEL_LEVEL
namespace baseline {
using namespace simd::baseline;
#include <dovetail/compress/demo_kernels.inc.hpp>
}  // namespace baseline

#if DOVETAIL_X86_LEVELS
DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX2)
namespace avx2 {
using namespace simd::avx2;
#include <dovetail/compress/demo_kernels.inc.hpp>
}  // namespace avx2
DOVETAIL_TARGET_END

DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX512)
namespace avx512 {
using namespace simd::avx512;
#include <dovetail/compress/demo_kernels.inc.hpp>
}  // namespace avx512
DOVETAIL_TARGET_END
#endif
#undef DOVETAIL_DEMO_KERNEL_LEVEL

#if DOVETAIL_X86_LEVELS
#define DOVETAIL_BY_LEVEL(call)                        \
  if (level == cpu_level::avx512) return avx512::call; \
  if (level == cpu_level::avx2) return avx2::call;     \
  return baseline::call
#else
#define DOVETAIL_BY_LEVEL(call) return baseline::call
#endif

/// One level's loops.
struct kernel_set {
  cpu_level level;

  /// out = a b of matrices with rows of 64 floats: `rows` rows of out, a multiple of 4, sums of `depth` products.
  DOVETAIL_NOINLINE void multiply(float const* a, float const* b, std::size_t rows, std::size_t depth,
                                  float* out) const {
    DOVETAIL_BY_LEVEL(multiply(a, b, rows, depth, out));
  }
  /// out = beta · momentum + gradient.
  DOVETAIL_NOINLINE void accumulate(float const* gradient, float const* momentum, float beta, std::size_t n,
                                    float* out) const {
    DOVETAIL_BY_LEVEL(accumulate(gradient, momentum, beta, n, out));
  }
};
#undef DOVETAIL_BY_LEVEL

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace dovetail::compress::demo_kernels
