// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <cstring>

#include <dovetail/nn/cells.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/recurrent.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// Scratch: T×B×3H of the input, T×B×3H of the state, carried gradient B×H.
struct gru_scratch {
  float *gx, *gh, *carried;
  gru_scratch(float* p, std::int64_t rows, std::int64_t h) : gx(p), gh(gx + rows * 3 * h), carried(gh + rows * 3 * h) {}
};

template <class Backend>
void gru_forward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(3, f, h);
  gru_scratch const s(c.scratch, steps * b, h);
  c.backend.gemm(false, true, steps * b, 3 * h, f, c.x, c.weights + at.w_ih, 0.f, s.gx);
  auto const& cell = best_cells();
  auto const times_u = c.backend.repeated_gemm(true, b, 3 * h, h, c.weights + at.w_hh, false);
  for (std::int64_t t = 0; t < steps; ++t) {
    if (t) times_u(c.y + (t - 1) * b * h, s.gh + t * b * 3 * h);
    c.backend.parallel(static_cast<std::size_t>(b), 3 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        cell.gru(s.gx + row * 3 * h, s.gh + row * 3 * h, t == 0, c.weights + at.b_ih, c.weights + at.b_hh,
                 t ? c.y + (row - b) * h : nullptr, c.y + row * h, n);
      }
    });
  }
}

template <class Backend>
void gru_backward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(3, f, h);
  gru_scratch const s(c.scratch, steps * b, h);
  std::memset(s.carried, 0, static_cast<std::size_t>(b) * n * sizeof(float));
  auto const& cell = best_cells();
  auto const times_u = c.backend.repeated_gemm(false, b, h, 3 * h, c.weights + at.w_hh, true);
  for (std::int64_t t = steps; t-- > 0;) {
    if (t + 1 < steps) times_u(s.gh + (t + 1) * b * 3 * h, s.carried);
    c.backend.parallel(static_cast<std::size_t>(b), 3 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        cell.gru_backward(s.gx + row * 3 * h, s.gh + row * 3 * h, t ? c.y + (row - b) * h : nullptr, c.dy + row * h,
                          s.carried + i * h, n);
      }
    });
  }
  auto const all = static_cast<std::size_t>(steps * b);
  c.backend.gemm(true, false, 3 * h, f, steps * b, s.gx, c.x, c.beta(), c.dw + at.w_ih);
  c.backend.gemm(true, false, 3 * h, h, (steps - 1) * b, s.gh + b * 3 * h, c.y, c.beta(), c.dw + at.w_hh);
  sum_rows(c.dw + at.b_ih, s.gx, all, 3 * n, c.accumulate);
  sum_rows(c.dw + at.b_hh, s.gh, all, 3 * n, c.accumulate);
  if (c.dx) c.backend.gemm(false, false, steps * b, f, 3 * h, s.gx, c.weights + at.w_ih, 0.f, c.dx);
}

}  // namespace detail

/// Gated recurrent unit over a sequence, from a zero state: {T, F} -> {T, H}, the hidden states.
///   r, z = σ(W x + b + U h + b'),  n = tanh(W_n x + b_n + r (U_n h + b'_n)),  h = (1 - z) n + z h
/// Tensors, gates in the order r, z, n: weight_ih_l0 {3H, F}, weight_hh_l0 {3H, H}, bias_ih_l0, bias_hh_l0 {3H}.
/// Cho et al. 2014, in the variant of cuDNN and PyTorch (r outside the product).
template <int H>
struct gru {
  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(H > 0, "a gru needs at least one unit", gru, At);
    DOVETAIL_REQUIRE(At::input.rank == 2,
                     "gru reads a sequence {steps, features}: put nn::embedding before it, or shape the input so", gru,
                     At);
  }
  static constexpr shape output(shape const& in) { return {in.rank ? in[0] : 1, H}; }
  static constexpr auto parameters(shape const& in) { return detail::recurrent_tensors(3, width(in), H); }
  static constexpr scratch_plan scratch(shape const& in) { return {rows(in, 1) * 6 * H + H, 0}; }
  static constexpr std::int64_t flops(shape const& in) { return 2 * rows(in, 1) * 3 * H * (width(in) + H); }

  template <class Backend>
  static void forward(layer_call<Backend> const& call) {
    detail::gru_forward(call, H);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& call) {
    detail::gru_backward(call, H);
  }
};

}  // namespace dovetail::nn
