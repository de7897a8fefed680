// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of powersgd, compiled once per cpu_level (powersgd_kernels.inc.hpp) and chosen at run time: products of a
// matrix with factors of few columns, each in one pass over the matrix.
namespace dovetail::compress::powersgd_kernels {

#define DOVETAIL_KERNELS <dovetail/compress/powersgd_kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// One level's loops. A matrix is m rows of n floats, factors are r columns one behind the other: `p` of m floats each,
/// `q` of n.
struct kernel_set {
  cpu_level level;

  /// x = gradient + residual, p = x q; x may be either.
  DOVETAIL_NOINLINE void project(float const* gradient, float const* residual, float* x, std::size_t m, std::size_t n,
                                 float const* q, std::size_t r, float* p) const {
    DOVETAIL_BY_LEVEL(project(gradient, residual, x, m, n, q, r, p));
  }
  /// q = xᵀ p.
  DOVETAIL_NOINLINE void project_back(float const* x, std::size_t m, std::size_t n, float const* p, std::size_t r,
                                      float* q) const {
    DOVETAIL_BY_LEVEL(project_back(x, m, n, p, r, q));
  }
  /// out += weight · p qᵀ.
  DOVETAIL_NOINLINE void add_product(float const* p, std::size_t m, float const* q, std::size_t n, std::size_t r,
                                     float weight, float* out) const {
    DOVETAIL_BY_LEVEL(add_product(p, m, q, n, r, weight, out));
  }
};

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace dovetail::compress::powersgd_kernels
