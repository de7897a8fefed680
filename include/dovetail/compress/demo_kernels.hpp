// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of demo, compiled once per cpu_level (demo_kernels.inc.hpp) and chosen at run time.
namespace dovetail::compress::demo_kernels {

#define DOVETAIL_KERNELS <dovetail/compress/demo_kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

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

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace dovetail::compress::demo_kernels
