// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstdint>

#include <dovetail/core/config.hpp>

// The codes of storage.hpp, element by element: what the vectors of storage_kernels.inc.hpp compute too, for devices
// and for compilers that have no such vectors.

namespace dovetail::optim::codes {

/// 16 random bits for element i of a block of 256, from the block's own word of Philox: two elements share a hash.
DOVETAIL_HD constexpr std::uint32_t random_bits(std::uint32_t word, std::uint32_t i) {
  std::uint32_t h = i % 128 * 0x9E3779B9u + word;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  h ^= h >> 16;
  return i < 128 ? h & 0xffffu : h >> 16;
}

/// The upper half of a float, rounded stochastically by 16 random bits.
DOVETAIL_HD constexpr std::uint16_t rounded_half(float x, std::uint32_t random) {
  auto const u = std::bit_cast<std::uint32_t>(x);
  bool const infinite = (u & 0x7f800000u) == 0x7f800000u, nan = (u & 0x7fffffffu) > 0x7f800000u;
  // Numbers that are not finite stay: a NaN keeps a bit in its upper half.
  return static_cast<std::uint16_t>(((u + (infinite ? 0 : random)) | (nan ? 0x400000u : 0)) >> 16);
}
DOVETAIL_HD constexpr float from_half(std::uint16_t h) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16);
}

/// What the 8-bit codes of a block depend on: found from all its elements.
struct block_range {
  std::uint32_t largest = 0;  ///< magnitude, as bits
  std::uint32_t signs = 0;    ///< the highest bit is set if an element is below 0

  DOVETAIL_HD constexpr void take(float x) {
    auto const u = std::bit_cast<std::uint32_t>(x), magnitude = u & 0x7fffffffu;
    if (magnitude > largest) largest = magnitude;
    if (magnitude) signs |= u & 0x80000000u;  // -0 is no negative number
  }
  /// False if all is zero, or something is not finite: all codes are 0 then.
  DOVETAIL_HD constexpr bool codable() const { return largest != 0 && largest < 0x7f800000u; }
  /// The largest magnitude, negative if there are signs; NaN if not all is finite. Never below the smallest normal
  /// float, which has an inverse.
  DOVETAIL_HD constexpr float scale() const {
    if (!codable()) return largest ? std::bit_cast<float>(0x7fc00000u) : 0.0f;
    return signs ? -size() : size();
  }
  DOVETAIL_HD constexpr float inverse() const { return 1 / size(); }
  /// Exponent and mantissa of code 1, and its value; a code below it is that or 0.
  DOVETAIL_HD constexpr std::uint32_t lowest() const { return signs ? 112u << 3 : 96u << 3; }
  DOVETAIL_HD constexpr float smallest() const { return std::bit_cast<float>(lowest() << 20); }
  /// `random`: 16 bits, the upper ones of the 20 that are rounded away.
  DOVETAIL_HD constexpr std::uint8_t code(float x, std::uint32_t random) const {
    if (!codable()) return 0;
    auto const u = std::bit_cast<std::uint32_t>(x);
    float const y = std::bit_cast<float>(u & 0x7fffffffu) * inverse();
    auto const bits = std::bit_cast<std::uint32_t>(y);
    std::uint32_t code = 0;
    if (bits >= lowest() << 20)
      code = ((bits + ((random << 4) + 8)) >> 20) - (lowest() - 1);
    else
      code = y * 0x1p16f > (static_cast<float>(random) + 0.5f) * smallest();
    if (signs && code) code |= (u >> 24) & 0x80u;
    return static_cast<std::uint8_t>(code);
  }

 private:
  DOVETAIL_HD constexpr float size() const {
    return std::bit_cast<float>(largest < 0x00800000u ? 0x00800000u : largest);
  }
};
DOVETAIL_HD constexpr float from_8bit(std::uint8_t code, float scale) {
  bool const signs = scale < 0;
  std::uint32_t const lowest = signs ? 112u << 3 : 96u << 3, magnitude = signs ? 0x7fu : 0xffu, m = code & magnitude;
  std::uint32_t const bits = m ? (m + (lowest - 1)) << 20 : 0, sign = (code & ~magnitude & 0x80u) << 24;
  return std::bit_cast<float>(bits | sign) * (signs ? -scale : scale);
}

// ---- blocks of 256

inline void pack_bf16(float const* x, std::uint32_t word, std::uint16_t* to) {
  for (std::uint32_t i = 0; i < 256; ++i) to[i] = rounded_half(x[i], random_bits(word, i));
}
inline void unpack_bf16(std::uint16_t const* from, float* x) {
  for (int i = 0; i < 256; ++i) x[i] = from_half(from[i]);
}
inline float pack_8bit(float const* x, std::uint32_t word, std::uint8_t* to) {
  block_range range;
  for (int i = 0; i < 256; ++i) range.take(x[i]);
  for (std::uint32_t i = 0; i < 256; ++i) to[i] = range.code(x[i], random_bits(word, i));
  return range.scale();
}
inline void unpack_8bit(std::uint8_t const* from, float scale, float* x) {
  for (int i = 0; i < 256; ++i) x[i] = from_8bit(from[i], scale);
}

}  // namespace dovetail::optim::codes
