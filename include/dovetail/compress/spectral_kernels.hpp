// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of compress/spectrum.hpp, compiled once per cpu_level (spectral_kernels.inc.hpp) and chosen at run time.
namespace dovetail::compress::spectral_kernels {

#define DOVETAIL_KERNELS <dovetail/compress/spectral_kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// One level's loops. Of symmetric matrices the lower triangle is read and written; their rows have `stride` doubles.
struct kernel_set {
  cpu_level level;

  /// g {m, m} = x xᵀ of m rows of n floats.
  DOVETAIL_NOINLINE void gram(float const* x, std::size_t m, std::size_t n, double* g) const {
    DOVETAIL_BY_LEVEL(gram(x, m, n, g));
  }
  /// y = a x.
  DOVETAIL_NOINLINE void multiply(double const* a, std::size_t stride, std::size_t n, double const* x,
                                  double* y) const {
    DOVETAIL_BY_LEVEL(multiply(a, stride, n, x, y));
  }
  /// a -= v qᵀ + q vᵀ.
  DOVETAIL_NOINLINE void subtract_products(double* a, std::size_t stride, std::size_t n, double const* v,
                                           double const* q) const {
    DOVETAIL_BY_LEVEL(subtract_products(a, stride, n, v, q));
  }
};

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace dovetail::compress::spectral_kernels
