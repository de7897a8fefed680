// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

namespace dovetail::nn {

/// What a backend must know of a convolution. Images are batch × height × width × channels, weights
/// filters × channels × kernel × kernel; one stride and one padding for both directions.
struct convolution_size {
  std::int64_t batch = 0, channels = 0, height = 0, width = 0, filters = 0, kernel = 0, stride = 1, padding = 0;

  constexpr std::int64_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
  constexpr std::int64_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
  constexpr std::int64_t weight_count() const { return filters * channels * kernel * kernel; }
  friend constexpr bool operator==(convolution_size const&, convolution_size const&) = default;
};

}  // namespace dovetail::nn
