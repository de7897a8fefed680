// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/vectors.hpp>

// Sums of magnitudes, in one order on every processor: 16 sums of floats over at most 1024 elements, then doubles. They
// wait for memory, so that the first cpu_level's loops do.
namespace dovetail::compress::detail {

inline constexpr float largest_float = 0x1.fffffep127f;

struct magnitude_sum {
  double sum = 0;         ///< of what is not above
  std::size_t above = 0;  ///< elements, with every NaN
};

/// Of |x|; what is above `bound` is counted, not added.
inline magnitude_sum magnitudes_up_to(std::span<float const> x, float bound) {
  using namespace simd::baseline;
  static_assert(lanes == 4);
  auto const limit = std::bit_cast<std::int32_t>(bound);
  magnitude_sum total;
  for (std::size_t at = 0; at < x.size(); at += 1024) {
    auto const part = x.subspan(at, std::min<std::size_t>(1024, x.size() - at));
    f32s sums[4] = {};
    i32s inside{};
    std::size_t i = 0;
    for (; i + 16 <= part.size(); i += 16) {
      __builtin_prefetch(part.data() + i + 2048);
      for (std::size_t j = 0; j < 4; ++j) {
        i32s const size = load<i32s>(part.data() + i + 4 * j) & 0x7fffffff;
        i32s const in = size <= limit;
        sums[j] += bits_as<f32s>(size & in);
        inside -= in;
      }
    }
    float rest[16] = {};
    std::size_t below = 0;
    for (std::size_t j = 0; i + j < part.size(); ++j) {
      auto const size = std::bit_cast<std::int32_t>(part[i + j]) & 0x7fffffff;
      below += size <= limit;
      if (size <= limit) rest[j] = std::bit_cast<float>(size);
    }
    double here = 0;
    for (std::size_t j = 0; j < 4; ++j)
      for (int lane = 0; lane < 4; ++lane)
        here += static_cast<double>(sums[j][lane] + rest[4 * j + static_cast<std::size_t>(lane)]);
    if (!is_finite(here)) [[unlikely]] {  // the floats have overflowed
      here = 0;
      for (float const v : part)
        if ((std::bit_cast<std::int32_t>(v) & 0x7fffffff) <= limit) here += std::fabs(static_cast<double>(v));
    }
    for (int lane = 0; lane < 4; ++lane) below += static_cast<std::size_t>(inside[lane]);
    total.sum += here;
    total.above += part.size() - below;
  }
  return total;
}

struct magnitudes {
  float largest;
  double sum;
};
/// Of 16 finite elements.
DOVETAIL_HOST_INLINE magnitudes magnitudes_of_16(float const* x) {
  using namespace simd::baseline;
  f32s const a = abs(load(x)), b = abs(load(x + 4)), c = abs(load(x + 8)), d = abs(load(x + 12));
  f32s const most = simd::baseline::max(simd::baseline::max(a, b), simd::baseline::max(c, d)), sum = (a + b) + (c + d);
  return {std::max(std::max(most[0], most[1]), std::max(most[2], most[3])),
          static_cast<double>((sum[0] + sum[1]) + (sum[2] + sum[3]))};
}

}  // namespace dovetail::compress::detail
