// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace dovetail {

/// True when no element is NaN or infinite. Tests exponent bits, so it does not depend on floating-point flags, and
/// works on explicit vectors, so it runs at memory speed at plain -O2.
inline bool all_finite(std::span<float const> values) {
#if defined(__GNUC__) || defined(__clang__)
  using words = std::uint32_t __attribute__((vector_size(64)));
  constexpr std::size_t width = 16;
#else
  using words = std::uint32_t;
  constexpr std::size_t width = 1;
#endif
  // Adding one unit to the exponent carries into the sign bit exactly when the exponent is all ones.
  words seen{};
  std::size_t i = 0;
  for (; i + width <= values.size(); i += width) {
    words w;
    std::memcpy(&w, values.data() + i, sizeof w);
    seen |= (w & 0x7fffffffu) + 0x00800000u;
  }
  std::uint32_t any = 0;
  std::uint32_t lanes[width];
  std::memcpy(lanes, &seen, sizeof seen);
  for (auto lane : lanes) any |= lane;
  for (; i < values.size(); ++i) {
    std::uint32_t w;
    std::memcpy(&w, values.data() + i, sizeof w);
    any |= (w & 0x7fffffffu) + 0x00800000u;
  }
  return (any & 0x80000000u) == 0;
}

}  // namespace dovetail
