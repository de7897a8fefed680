// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>

// The order in which magnitudes, or squares, of a block are added, the same on every processor and on a device:
// - The block is cut into chunks of 4096 elements.
// - A chunk has 16 sums in fp32: element i of it is added to the (i mod 16)-th. The 16 are added in double, the first
//   one first. A chunk whose sums in fp32 overflow is added in double, element by element.
// - The chunks have 32 sums in double: chunk c is added to the (c mod 32)-th. The 32 are added, the first one first.
// 16 sums are what a vector of 16 lanes, or several shorter ones, add at once; a device adds chunks side by side, and
// the 32 sums with the lanes of a warp.
namespace dovetail::compress::detail {

inline constexpr std::size_t sum_chunk = 4096;
inline constexpr std::size_t sum_lanes = 16;
inline constexpr std::size_t chunk_lanes = 32;

/// Adds the sums of a block's chunks, as they come.
class chunk_sums {
 public:
  DOVETAIL_HOST_INLINE void add(double chunk) {
    if (chunks_ < chunk_lanes)
      sums_[chunks_] = chunk;
    else
      sums_[chunks_ % chunk_lanes] += chunk;
    ++chunks_;
  }
  double total() const {
    double all = 0;
    for (std::size_t i = 0; i < std::min(chunks_, chunk_lanes); ++i) all += sums_[i];
    return all;
  }

 private:
  double sums_[chunk_lanes];
  std::size_t chunks_ = 0;
};

/// The sum of magnitudes once more, where sums in fp32 have overflowed or an element is not finite.
DOVETAIL_COLD inline double magnitudes_again(float const* x, std::size_t n) {
  chunk_sums total;
  for (std::size_t at = 0; at < n; at += sum_chunk) {
    std::size_t const stop = std::min(n, at + sum_chunk);
    float sums[sum_lanes] = {};
    for (std::size_t i = at; i < stop; ++i) sums[(i - at) % sum_lanes] += std::fabs(x[i]);
    double chunk = 0;
    for (float const s : sums) chunk += static_cast<double>(s);
    if (!is_finite(chunk)) {
      chunk = 0;
      for (std::size_t i = at; i < stop; ++i) chunk += std::fabs(static_cast<double>(x[i]));
    }
    total.add(chunk);
  }
  return total.total();
}

/// The mean of n > 0 numbers from their sum; a NaN without the sign that it may carry.
DOVETAIL_HD inline float mean_of(double sum, std::size_t n) {
  return is_nan(sum) ? not_a_number<float>() : static_cast<float>(sum / static_cast<double>(n));
}

}  // namespace dovetail::compress::detail
