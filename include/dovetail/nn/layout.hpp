// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <cstring>

#include <dovetail/core/shape.hpp>
#include <dovetail/nn/vector_math.hpp>

// The two orders of an activation: the caller's (sample by sample, row-major: PyTorch's) and the network's (layer.hpp).
namespace dovetail::nn::detail {

/// True when both orders are the same bytes.
constexpr bool same_layout(shape const& s, std::int64_t batch) {
  if (s.rank == 2) return s[0] == 1 || batch == 1;
  if (s.rank == 3) return s[0] == 1 || s[1] * s[2] == 1;
  return true;
}

inline void swap_outer(float* to, float const* from, std::size_t outer, std::size_t inner, std::size_t width) {
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t i = 0; i < inner; ++i)
      std::memcpy(to + (i * outer + o) * width, from + (o * inner + i) * width, width * sizeof(float));
}

/// Caller's order to the network's.
inline void to_network(float* to, float const* from, shape const& s, std::int64_t batch) {
  auto const b = static_cast<std::size_t>(batch), n = static_cast<std::size_t>(s.size());
  if (same_layout(s, batch)) {
    if (b * n > 0) std::memcpy(to, from, b * n * sizeof(float));
  } else if (s.rank == 2) {
    swap_outer(to, from, b, static_cast<std::size_t>(s[0]), static_cast<std::size_t>(s[1]));
  } else {
    for (std::size_t i = 0; i < b; ++i)
      transpose(to + i * n, from + i * n, static_cast<std::size_t>(s[0]), static_cast<std::size_t>(s[1] * s[2]));
  }
}

/// The network's order to the caller's.
inline void to_caller(float* to, float const* from, shape const& s, std::int64_t batch) {
  auto const b = static_cast<std::size_t>(batch), n = static_cast<std::size_t>(s.size());
  if (same_layout(s, batch)) {
    if (b * n > 0) std::memcpy(to, from, b * n * sizeof(float));
  } else if (s.rank == 2) {
    swap_outer(to, from, static_cast<std::size_t>(s[0]), b, static_cast<std::size_t>(s[1]));
  } else {
    for (std::size_t i = 0; i < b; ++i)
      transpose(to + i * n, from + i * n, static_cast<std::size_t>(s[1] * s[2]), static_cast<std::size_t>(s[0]));
  }
}

}  // namespace dovetail::nn::detail
