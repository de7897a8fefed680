// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/nn/vector_math.hpp>

// The loops of layers that compute exponentials, compiled once per cpu_level (cells.inc.hpp) and chosen at run time.
// Their bits do not depend on the level. They divide once per exponential, which 512-bit registers do no faster.
namespace dovetail::nn::detail {

/// One level's loops.
struct cell_kernels {
  /// One step of one sequence of n units. `gates` (4n: i, f, g, o) comes in as products and leaves activated, for
  /// backward; `c_before` is null in the first step.
  void (*lstm)(float* gates, float const* bias, float const* c_before, float* c, float* h, std::size_t n);
  /// The same, backwards: `gates` become their gradients, and `dc` that of the step before.
  void (*lstm_backward)(float* gates, float const* c_before, float const* c, float const* dh, float* dc, std::size_t n);
  /// One step of one sequence of n units. `gx` (3n: r, z, n) comes in as the input's products and leaves activated;
  /// `gh` comes in as U h (unread in the first step, where h is zero) and keeps U_n h + b'_n in its last third, for
  /// backward.
  void (*gru)(float* gx, float* gh, bool first, float const* b, float const* b2, float const* h_before, float* h,
              std::size_t n);
  /// The same, backwards: `gx` and `gh` become gradients of the products, and `carried`, in the direct path, that of h
  /// before.
  void (*gru_backward)(float* gx, float* gh, float const* h_before, float const* dy, float* carried, std::size_t n);
  /// y[j] = f(x[j]) for j in [0, n); y may be x.
  void (*tanh)(float* y, float const* x, std::size_t n);
  void (*sigmoid)(float* y, float const* x, std::size_t n);
};

#define DOVETAIL_NN_CELLS
#include <dovetail/nn/cells.inc.hpp>
}  // namespace dovetail::nn::detail

#if DOVETAIL_X86_LEVELS
DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX2)
namespace dovetail::nn::kernels::avx2 {
#include <dovetail/nn/cells.inc.hpp>
}  // namespace dovetail::nn::kernels::avx2
DOVETAIL_TARGET_END
#endif
#undef DOVETAIL_NN_CELLS

namespace dovetail::nn::detail {

/// The loops compiled for `level`, which the processor must support.
inline cell_kernels const& cells_at(cpu_level level) {
#if DOVETAIL_X86_LEVELS
  if (level != cpu_level::baseline) return kernels::avx2::cells;
#endif
  (void)level;
  return cells;
}
/// Those for this processor.
inline cell_kernels const& best_cells() { return cells_at(supported_cpu_level()); }

}  // namespace dovetail::nn::detail
