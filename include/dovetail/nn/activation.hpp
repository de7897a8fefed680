// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/nn/cells.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/vector_math.hpp>

// Elementwise layers: any shape in, the same out, no tensors. Their derivative is a function of their output, so the
// output overwrites the input wherever the layer before does not need it: no pass over memory, no memory.
namespace dovetail::nn {

namespace detail {
/// On the way forward y = f(x), element by element; on the way back dx is a function of y and dy.
template <class Rule>
struct activation {
  template <class Backend>
  DOVETAIL_NOINLINE static void forward(layer_call<Backend> const& c) {
    c.backend.parallel(static_cast<std::size_t>(c.out_size()), [&](std::size_t begin, std::size_t end) {
      Rule::values(c.y + begin, c.x + begin, end - begin);
    });
  }
  template <class Backend>
  DOVETAIL_NOINLINE static void backward(layer_call<Backend> const& c) {
    if (!c.dx) return;
    c.backend.parallel(static_cast<std::size_t>(c.out_size()), [&](std::size_t begin, std::size_t end) {
      map(
          end - begin, c.dx + begin, [](f32s y, f32s dy) { return Rule::chain(y, dy); }, c.y + begin, c.dy + begin);
    });
  }
};
struct relu_rule {
  // A NaN stays one, and is seen, and so is its gradient.
  static void values(float* y, float const* x, std::size_t n) {
    map(
        n, y, [](f32s a) { return for_nan(a, a, select(a < f32s{}, f32s{}, a)); }, x);
  }
  static f32s chain(f32s y, f32s dy) { return for_nan(y, dy, select(y <= f32s{}, f32s{}, dy)); }
};
struct tanh_rule {
  static void values(float* y, float const* x, std::size_t n) { best_cells().tanh(y, x, n); }
  static f32s chain(f32s y, f32s dy) { return dy * (1.f - y * y); }
};
struct sigmoid_rule {
  static void values(float* y, float const* x, std::size_t n) { best_cells().sigmoid(y, x, n); }
  static f32s chain(f32s y, f32s dy) { return dy * (y * (1.f - y)); }
};
}  // namespace detail

/// max(x, 0).
struct relu {
  static constexpr bool in_place = true;
  static constexpr shape output(shape const& in) { return in; }
  static void forward(auto const& call) { detail::activation<detail::relu_rule>::forward(call); }
  static void backward(auto const& call) { detail::activation<detail::relu_rule>::backward(call); }
};

/// tanh x.
struct tanh {
  static constexpr bool in_place = true;
  static constexpr shape output(shape const& in) { return in; }
  static void forward(auto const& call) { detail::activation<detail::tanh_rule>::forward(call); }
  static void backward(auto const& call) { detail::activation<detail::tanh_rule>::backward(call); }
};

/// 1 / (1 + e^-x).
struct sigmoid {
  static constexpr bool in_place = true;
  static constexpr shape output(shape const& in) { return in; }
  static void forward(auto const& call) { detail::activation<detail::sigmoid_rule>::forward(call); }
  static void backward(auto const& call) { detail::activation<detail::sigmoid_rule>::backward(call); }
};

}  // namespace dovetail::nn
