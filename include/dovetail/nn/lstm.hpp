// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include <dovetail/nn/cells.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/recurrent.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// Scratch: activated gates T×B×4H, cells T×B×H, dc B×H, then the sum of the biases 4H.
struct lstm_scratch {
  float *gates, *cells, *dc, *bias;
  lstm_scratch(float* p, std::int64_t rows, std::int64_t batch, std::int64_t h)
      : gates(p), cells(gates + rows * 4 * h), dc(cells + rows * h), bias(dc + batch * h) {}
};

/// The input's product is one multiplication over all steps; only the recurrent one goes step by step, with U prepared
/// once.
template <class Backend>
void lstm_forward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(4, f, h);
  lstm_scratch const s(c.scratch, steps * b, b, h);
  std::memcpy(s.bias, c.weights + at.b_ih, 4 * n * sizeof(float));
  add_to(s.bias, c.weights + at.b_hh, 4 * n);
  c.backend.gemm(false, true, steps * b, 4 * h, f, c.x, c.weights + at.w_ih, 0.f, s.gates);
  auto const& cell = best_cells();
  auto const times_u = c.backend.repeated_gemm(true, b, 4 * h, h, c.weights + at.w_hh, true);
  for (std::int64_t t = 0; t < steps; ++t) {
    if (t) times_u(c.y + (t - 1) * b * h, s.gates + t * b * 4 * h);
    c.backend.parallel(static_cast<std::size_t>(b), 4 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        cell.lstm(s.gates + row * 4 * h, s.bias, t ? s.cells + (row - b) * h : nullptr, s.cells + row * h,
                  c.y + row * h, n);
      }
    });
  }
}

template <class Backend>
void lstm_backward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(4, f, h);
  lstm_scratch const s(c.scratch, steps * b, b, h);
  std::memset(s.dc, 0, static_cast<std::size_t>(b) * n * sizeof(float));
  auto const& cell = best_cells();
  auto const times_u = c.backend.repeated_gemm(false, b, h, 4 * h, c.weights + at.w_hh, true);
  for (std::int64_t t = steps; t-- > 0;) {
    if (t + 1 < steps) times_u(s.gates + (t + 1) * b * 4 * h, c.dy + t * b * h);  // what it sends back through h
    c.backend.parallel(static_cast<std::size_t>(b), 4 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        cell.lstm_backward(s.gates + row * 4 * h, t ? s.cells + (row - b) * h : nullptr, s.cells + row * h,
                           c.dy + row * h, s.dc + i * h, n);
      }
    });
  }
  c.backend.gemm(true, false, 4 * h, f, steps * b, s.gates, c.x, c.beta(), c.dw + at.w_ih);
  c.backend.gemm(true, false, 4 * h, h, (steps - 1) * b, s.gates + b * 4 * h, c.y, c.beta(), c.dw + at.w_hh);
  sum_rows(s.bias, s.gates, static_cast<std::size_t>(steps * b), 4 * n, false);
  for (auto const bias : {at.b_ih, at.b_hh}) {  // they enter as a sum: their gradients are equal
    if (c.accumulate)
      add_to(c.dw + bias, s.bias, 4 * n);
    else
      std::memcpy(c.dw + bias, s.bias, 4 * n * sizeof(float));
  }
  if (c.dx) c.backend.gemm(false, false, steps * b, f, 4 * h, s.gates, c.weights + at.w_ih, 0.f, c.dx);
}

}  // namespace detail

/// Long short-term memory over a sequence, from a zero state: {T, F} -> {T, H}, the hidden states.
///   i, f, o = σ(W x + b + U h + b'),  g = tanh(…),  c = f c + i g,  h = o tanh c
/// Tensors, gates in the order i, f, g, o: weight_ih_l0 {4H, F}, weight_hh_l0 {4H, H}, bias_ih_l0, bias_hh_l0 {4H}.
/// Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
template <int H>
struct lstm {
  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(H > 0, "an lstm needs at least one unit", lstm, At);
    DOVETAIL_REQUIRE(At::input.rank == 2,
                     "lstm reads a sequence {steps, features}: put nn::embedding before it, or shape the input so",
                     lstm, At);
  }
  static constexpr shape output(shape const& in) { return {in.rank ? in[0] : 1, H}; }
  static constexpr auto parameters(shape const& in) { return detail::recurrent_tensors(4, width(in), H); }
  static constexpr scratch_plan scratch(shape const& in) { return {rows(in, 1) * 5 * H + H, 4 * std::int64_t{H}}; }
  static constexpr std::int64_t flops(shape const& in) { return 2 * rows(in, 1) * 4 * H * (width(in) + H); }

  template <class Backend>
  static void forward(layer_call<Backend> const& call) {
    detail::lstm_forward(call, H);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& call) {
    detail::lstm_backward(call, H);
  }
};

}  // namespace dovetail::nn
