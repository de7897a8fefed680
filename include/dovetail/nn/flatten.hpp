// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/layout.hpp>

namespace dovetail::nn {

/// All extents become one, in row-major order as in PyTorch: {C, H, W} -> {C·H·W}, {T, F} -> {T·F}. No tensors.
struct flatten {
  static constexpr bool keeps_output = false;
  static constexpr shape output(shape const& in) { return {in.size()}; }
  static constexpr std::int64_t flops(shape const&) { return 0; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    detail::to_caller(c.y, c.x, c.in, c.batch);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    if (c.dx) detail::to_network(c.dx, c.dy, c.in, c.batch);
  }
};

}  // namespace dovetail::nn
