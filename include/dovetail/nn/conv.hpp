// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/layer.hpp>

namespace dovetail::nn {

/// Convolution: {C, H, W} -> {Filters, (H + 2 Padding - Kernel) / Stride + 1, …}.
/// Tensors: weight {Filters, C, Kernel, Kernel}, bias {Filters}.
template <int Filters, int Kernel, int Stride = 1, int Padding = 0>
struct conv {
  static constexpr bool keeps_output = false;

  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(Filters > 0 && Kernel > 0 && Stride > 0 && Padding >= 0,
                     "conv<Filters, Kernel, Stride, Padding> needs positive numbers", conv, At);
    DOVETAIL_REQUIRE(At::input.rank == 3, "conv reads an image {channels, height, width}", conv, At);
    if constexpr (At::input.rank == 3)
      DOVETAIL_REQUIRE(
          At::input[1] >= Kernel - std::int64_t{2} * Padding && At::input[2] >= Kernel - std::int64_t{2} * Padding,
          "conv's kernel is larger than its image", conv, At);
  }
  static constexpr shape output(shape const& in) {
    if (in.rank != 3 || Stride < 1) return in;  // refused by check
    auto const s = size(in, 0);
    return {Filters, s.out_height(), s.out_width()};
  }
  static constexpr auto parameters(shape const& in) {
    auto const fan = in[0] * Kernel * Kernel;
    return std::array{tensor_plan{"weight", {Filters, in[0], Kernel, Kernel}, initial::uniform, fan},
                      tensor_plan{"bias", {Filters}, initial::uniform, fan}};
  }
  static constexpr std::int64_t flops(shape const& in) { return 2 * output(in).size() * in[0] * Kernel * Kernel; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    auto const s = size(c.in, c.batch);
    c.backend.conv_forward(s, c.x, c.weights, c.weights + s.weight_count(), c.y);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    auto const s = size(c.in, c.batch);
    c.backend.conv_backward_weights(s, c.x, c.dy, c.dw, c.dw + s.weight_count(), c.accumulate);
    if (c.dx) c.backend.conv_backward_data(s, c.weights, c.dy, c.dx);
  }
  /// Its inputs are patches: one row for each pixel of the output, in the order of the weights.
  template <class Backend, class F>
  static void factors(layer_call<Backend> const& c, F const& f) {
    auto const s = size(c.in, c.batch);
    auto const pixels = s.out_height() * s.out_width(), in = c.in[0] * Kernel * Kernel;
    std::vector<float> patches(static_cast<std::size_t>(c.batch * pixels * in));
    float* to = patches.data();
    for (std::int64_t b = 0; b < c.batch; ++b)
      for (std::int64_t oy = 0; oy < s.out_height(); ++oy)
        for (std::int64_t ox = 0; ox < s.out_width(); ++ox, to += in)
          for (std::int64_t ky = 0; ky < Kernel; ++ky)
            for (std::int64_t kx = 0; kx < Kernel; ++kx) {
              auto const y = oy * Stride + ky - Padding, x = ox * Stride + kx - Padding;
              if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;  // padding is zero
              float const* const from = c.x + ((b * s.height + y) * s.width + x) * s.channels;
              for (std::int64_t k = 0; k < s.channels; ++k) to[(k * Kernel + ky) * Kernel + kx] = from[k];
            }
    f({.rows = c.batch * pixels,
       .in = in,
       .out = Filters,
       .inputs = patches.data(),
       .output_gradients = c.dy,
       .positions = pixels});
  }

 private:
  static constexpr convolution_size size(shape const& in, std::int64_t batch) {
    return {batch, in[0], in[1], in[2], Filters, Kernel, Stride, Padding};
  }
};

}  // namespace dovetail::nn
