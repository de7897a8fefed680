// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstring>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/recurrent.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// One step of one sequence. `gates` (4H: i, f, g, o) comes in as products and leaves activated, for backward.
DOVETAIL_NOINLINE inline void lstm_cell(float* gates, float const* bias, float const* c_before, float* c, float* h,
                                        std::size_t n) {
  each_pack(n, [=](auto read, auto write, std::size_t j) {
    pack const i = sigmoid(read(gates + j) + read(bias + j));
    pack const f = sigmoid(read(gates + n + j) + read(bias + n + j));
    pack const g = tanh(read(gates + 2 * n + j) + read(bias + 2 * n + j));
    pack const o = sigmoid(read(gates + 3 * n + j) + read(bias + 3 * n + j));
    pack const cell = (c_before ? f * read(c_before + j) : pack{}) + i * g;
    write(gates + j, i);
    write(gates + n + j, f);
    write(gates + 2 * n + j, g);
    write(gates + 3 * n + j, o);
    write(c + j, cell);
    write(h + j, o * tanh(cell));
  });
}

/// The same, backwards: `gates` become their gradients, and `dc` that of the step before.
DOVETAIL_NOINLINE inline void lstm_cell_backward(float* gates, float const* c_before, float const* c, float const* dh,
                                                 float* dc, std::size_t n) {
  each_pack(n, [=](auto read, auto write, std::size_t j) {
    pack const i = read(gates + j), f = read(gates + n + j), g = read(gates + 2 * n + j), o = read(gates + 3 * n + j);
    pack const th = tanh(read(c + j)), d = read(dh + j);
    pack const dcell = read(dc + j) + d * o * (1.f - th * th);
    pack const before = c_before ? read(c_before + j) : pack{};
    write(gates + j, dcell * g * (i * (1.f - i)));
    write(gates + n + j, dcell * before * (f * (1.f - f)));
    write(gates + 2 * n + j, dcell * i * (1.f - g * g));
    write(gates + 3 * n + j, d * th * (o * (1.f - o)));
    write(dc + j, dcell * f);
  });
}

/// Scratch: activated gates T×B×4H, cells T×B×H, dc B×H, then U transposed H×4H and the sum of the biases 4H.
struct lstm_scratch {
  float *gates, *cells, *dc, *u, *bias;
  lstm_scratch(float* p, std::int64_t rows, std::int64_t batch, std::int64_t h)
      : gates(p), cells(gates + rows * 4 * h), dc(cells + rows * h), u(dc + batch * h), bias(u + 4 * h * h) {}
};

/// The input's product is one multiplication over all steps; only the recurrent one goes step by step, and that with U
/// transposed once, which makes it a third faster than reading U by columns fifty times.
template <class Backend>
void lstm_forward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(4, f, h);
  lstm_scratch const s(c.scratch, steps * b, b, h);
  transpose(s.u, c.weights + at.w_hh, 4 * n, n);
  std::memcpy(s.bias, c.weights + at.b_ih, 4 * n * sizeof(float));
  add_to(s.bias, c.weights + at.b_hh, 4 * n);
  c.backend.gemm(false, true, steps * b, 4 * h, f, c.x, c.weights + at.w_ih, 0.f, s.gates);
  for (std::int64_t t = 0; t < steps; ++t) {
    float* const gates = s.gates + t * b * 4 * h;
    if (t) c.backend.gemm(false, false, b, 4 * h, h, c.y + (t - 1) * b * h, s.u, 1.f, gates);
    c.backend.parallel(static_cast<std::size_t>(b), 4 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        lstm_cell(s.gates + row * 4 * h, s.bias, t ? s.cells + (row - b) * h : nullptr, s.cells + row * h,
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
  for (std::int64_t t = steps; t-- > 0;) {
    if (t + 1 < steps)  // what the next step sends back through h
      c.backend.gemm(false, false, b, h, 4 * h, s.gates + (t + 1) * b * 4 * h, c.weights + at.w_hh, 1.f,
                     c.dy + t * b * h);
    c.backend.parallel(static_cast<std::size_t>(b), 4 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        lstm_cell_backward(s.gates + row * 4 * h, t ? s.cells + (row - b) * h : nullptr, s.cells + row * h,
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
  static constexpr scratch_plan scratch(shape const& in) {
    return {rows(in, 1) * 5 * H + H, 4 * std::int64_t{H} * H + 4 * H};
  }
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
