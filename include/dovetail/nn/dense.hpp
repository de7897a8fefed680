// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/batch.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

/// y = x Wᵀ + b over the last extent: {F} -> {N}, {T, F} -> {T, N}. Tensors: weight {N, F}, bias {N}.
template <int N>
struct dense {
  static constexpr bool keeps_output = false;

  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(N > 0, "a dense layer needs at least one output", dense, At);
    DOVETAIL_REQUIRE(At::input.rank != 3, "dense reads features, not an image: put nn::flatten before it", dense, At);
    DOVETAIL_REQUIRE(At::input.rank == 1 || At::input.rank == 2 || At::input.rank == 3,
                     "dense reads {features} or {steps, features}", dense, At);
  }
  static constexpr shape output(shape in) {
    if (in.rank == 0) return shape{N};
    in[in.rank - 1] = N;
    return in;
  }
  static constexpr auto parameters(shape const& in) {
    return std::array{tensor_plan{"weight", {N, width(in)}, initial::uniform, width(in)},
                      tensor_plan{"bias", {N}, initial::uniform, width(in)}};
  }
  static constexpr std::int64_t flops(shape const& in) { return 2 * rows(in, 1) * width(in) * N; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    auto const r = rows(c.in, c.batch), f = width(c.in), n = width(c.out);
    detail::fill_rows(c.y, c.weights + n * f, static_cast<std::size_t>(r), static_cast<std::size_t>(n));
    c.backend.gemm(false, true, r, n, f, c.x, c.weights, 1.f, c.y);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    auto const r = rows(c.in, c.batch), f = width(c.in), n = width(c.out);
    c.backend.gemm(true, false, n, f, r, c.dy, c.x, c.beta(), c.dw);
    detail::sum_rows(c.dw + n * f, c.dy, static_cast<std::size_t>(r), static_cast<std::size_t>(n), c.accumulate);
    if (c.dx) c.backend.gemm(false, false, r, f, n, c.dy, c.weights, 0.f, c.dx);
  }
  template <class Backend, class F>
  static void factors(layer_call<Backend> const& c, F const& f) {
    f({.rows = rows(c.in, c.batch), .in = width(c.in), .out = width(c.out), .inputs = c.x, .output_gradients = c.dy});
  }
};

}  // namespace dovetail::nn
