// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstring>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/recurrent.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// One step of one sequence. `gx` (3H: r, z, n) comes in as the input's products and leaves activated; `gh` comes in as
/// U h (null in the first step, where h is zero) and keeps U_n h + b'_n in its last third, for backward.
DOVETAIL_NOINLINE inline void gru_cell(float* gx, float* gh, bool first, float const* b, float const* b2,
                                       float const* h_before, float* h, std::size_t n) {
  each_pack(n, [=](auto read, auto write, std::size_t j) {
    auto const u = [&](std::size_t k) { return (first ? pack{} : read(gh + k)) + read(b2 + k); };
    pack const r = sigmoid(read(gx + j) + read(b + j) + u(j));
    pack const z = sigmoid(read(gx + n + j) + read(b + n + j) + u(n + j));
    pack const un = u(2 * n + j);
    pack const c = tanh(read(gx + 2 * n + j) + read(b + 2 * n + j) + r * un);
    write(gx + j, r);
    write(gx + n + j, z);
    write(gx + 2 * n + j, c);
    write(gh + 2 * n + j, un);
    write(h + j, c + z * ((first ? pack{} : read(h_before + j)) - c));
  });
}

/// The same, backwards: `gx` and `gh` become gradients of the products, and `dh`, in the direct path, that of h before.
DOVETAIL_NOINLINE inline void gru_cell_backward(float* gx, float* gh, float const* h_before, float const* dy,
                                                float* carried, std::size_t n) {
  each_pack(n, [=](auto read, auto write, std::size_t j) {
    pack const r = read(gx + j), z = read(gx + n + j), c = read(gx + 2 * n + j), un = read(gh + 2 * n + j);
    pack const before = h_before ? read(h_before + j) : pack{};
    pack const d = read(dy + j) + read(carried + j);
    pack const dn = d * (1.f - z) * (1.f - c * c);
    pack const dr = dn * un * (r * (1.f - r));
    pack const dz = d * (before - c) * (z * (1.f - z));
    write(gx + j, dr);
    write(gx + n + j, dz);
    write(gx + 2 * n + j, dn);
    write(gh + j, dr);
    write(gh + n + j, dz);
    write(gh + 2 * n + j, dn * r);
    write(carried + j, d * z);
  });
}

/// Scratch: T×B×3H of the input, T×B×3H of the state, carried gradient B×H, U transposed H×3H.
struct gru_scratch {
  float *gx, *gh, *carried, *u;
  gru_scratch(float* p, std::int64_t rows, std::int64_t batch, std::int64_t h)
      : gx(p), gh(gx + rows * 3 * h), carried(gh + rows * 3 * h), u(carried + batch * h) {}
};

template <class Backend>
void gru_forward(layer_call<Backend> const& c, std::int64_t h) {
  auto const b = c.batch, steps = c.in[0], f = width(c.in);
  auto const n = static_cast<std::size_t>(h);
  recurrent_offsets const at(3, f, h);
  gru_scratch const s(c.scratch, steps * b, b, h);
  transpose(s.u, c.weights + at.w_hh, 3 * n, n);
  c.backend.gemm(false, true, steps * b, 3 * h, f, c.x, c.weights + at.w_ih, 0.f, s.gx);
  for (std::int64_t t = 0; t < steps; ++t) {
    if (t) c.backend.gemm(false, false, b, 3 * h, h, c.y + (t - 1) * b * h, s.u, 0.f, s.gh + t * b * 3 * h);
    c.backend.parallel(static_cast<std::size_t>(b), 3 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        gru_cell(s.gx + row * 3 * h, s.gh + row * 3 * h, t == 0, c.weights + at.b_ih, c.weights + at.b_hh,
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
  gru_scratch const s(c.scratch, steps * b, b, h);
  std::memset(s.carried, 0, static_cast<std::size_t>(b) * n * sizeof(float));
  for (std::int64_t t = steps; t-- > 0;) {
    if (t + 1 < steps)
      c.backend.gemm(false, false, b, h, 3 * h, s.gh + (t + 1) * b * 3 * h, c.weights + at.w_hh, 1.f, s.carried);
    c.backend.parallel(static_cast<std::size_t>(b), 3 * n * 8, [&](std::size_t begin, std::size_t end) {
      for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
        auto const row = t * b + i;
        gru_cell_backward(s.gx + row * 3 * h, s.gh + row * 3 * h, t ? c.y + (row - b) * h : nullptr, c.dy + row * h,
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
  static constexpr scratch_plan scratch(shape const& in) { return {rows(in, 1) * 6 * H + H, 3 * std::int64_t{H} * H}; }
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
