// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstdint>

#include <dovetail/core/config.hpp>

// The codes of storage.hpp, element by element: what the vectors of storage_kernels.inc.hpp compute too, for devices
// and for compilers that have no such vectors.

namespace dovetail::optim::codes {

/// 16 random bits for element i of a block of 256, from the block's own word: two elements share a hash of its lower
/// half, and the upper half is added.
DOVETAIL_HD constexpr std::uint32_t random_bits(std::uint32_t word, std::uint32_t i) {
  std::uint32_t h = i % 128 * 0x9E3779B9u + (word & 0xffffu);
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  h ^= h >> 16;
  return ((i < 128 ? h : h >> 16) + (word >> 16)) & 0xffffu;
}
/// A block's word in one step, from its word of all steps: the upper half goes on by the golden ratio. So the bits of
/// an element are spread evenly over any few successive steps, and a slot that is rounded in each of them follows its
/// average closely; with bits of no order it would wander about it, second moments by a third in 8 bits.
DOVETAIL_HD constexpr std::uint32_t word_of_step(std::uint32_t word, std::uint64_t step) {
  return word + (static_cast<std::uint32_t>(step) * 0x9E37u << 16);
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

/// The floating-point format of a block's 8 bits. Code c > 0 is the float whose bits are (c + before) << shift, as a
/// share of the block's scale: 3 bits of mantissa in a narrow block, 2 in a wide one, whose exponents reach twice as
/// far. A block without signs reaches twice as far as one with: as far down as squares, beside what they are squares
/// of.
struct format_8bit {
  int shift;              ///< bits of a float's mantissa that are rounded away
  std::uint32_t lowest;   ///< exponent and mantissa of code 1
  std::uint32_t before;   ///< lowest - 1
  std::uint32_t least;    ///< bits of the least share that does not become 0
  std::uint32_t numbers;  ///< mask of the code without its sign

  DOVETAIL_HD static constexpr format_8bit of(bool wide, bool signs) {
    int const shift = wide ? 21 : 20;
    std::uint32_t const exponent = signs ? (wide ? 96 : 112) : (wide ? 64 : 96), lowest = exponent << (23 - shift);
    // Without signs (second moments) nothing becomes 0 that is not: a step divides by it. With signs (first moments),
    // what is smaller than all numbers of the format does; a little slack is for the rounding of the share itself.
    return {shift, lowest, lowest - 1, signs ? (lowest << shift) - 0x10000u : 0, signs ? 0x7fu : 0xffu};
  }
};

/// What the 8-bit codes of a block depend on: found from all its elements.
struct block_range {
  std::uint32_t largest = 0;            ///< magnitude, as bits
  std::uint32_t smallest = 0x7fffffff;  ///< the same, of those that are not 0
  std::uint32_t signs = 0;              ///< the highest bit is set if an element is below 0

  DOVETAIL_HD constexpr void take(float x) {
    auto const u = std::bit_cast<std::uint32_t>(x), magnitude = u & 0x7fffffffu;
    if (magnitude > largest) largest = magnitude;
    if (magnitude && magnitude < smallest) smallest = magnitude;
    if (magnitude) signs |= u & 0x80000000u;  // -0 is no negative number
  }
  /// False if all is zero, or something is not finite: all codes are 0 then.
  DOVETAIL_HD constexpr bool codable() const { return largest != 0 && largest < 0x7f800000u; }
  /// True if the narrow format does not reach from the largest element to the smallest.
  DOVETAIL_HD constexpr bool wide() const {
    return std::bit_cast<float>(smallest) < std::bit_cast<float>(normal()) * (signs ? 0x1p-15f : 0x1p-31f);
  }
  DOVETAIL_HD constexpr format_8bit format() const { return format_8bit::of(wide(), signs != 0); }
  /// The largest magnitude, negative if there are signs, with its last bit set in a wide block and not in a narrow one;
  /// NaN if not all is finite. Never below the smallest normal float, which has an inverse.
  DOVETAIL_HD constexpr float scale() const {
    if (!codable()) return largest ? std::bit_cast<float>(0x7fc00000u) : 0.0f;
    return signs ? -size() : size();
  }
  DOVETAIL_HD constexpr float inverse() const { return 1 / size(); }
  /// `random`: 16 bits, the upper ones of those that are rounded away.
  DOVETAIL_HD constexpr std::uint8_t code(float x, std::uint32_t random) const {
    if (!codable()) return 0;
    format_8bit const f = format();
    auto const u = std::bit_cast<std::uint32_t>(x), magnitude = u & 0x7fffffffu;
    auto const bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * inverse());
    std::uint32_t code = 0;
    if (bits >= f.lowest << f.shift)
      code = ((bits + (random << (f.shift - 16)) + (1u << (f.shift - 17))) >> f.shift) - f.before;
    else
      code = magnitude && bits >= f.least;
    if (signs && code) code |= (u >> 24) & 0x80u;
    return static_cast<std::uint8_t>(code);
  }

 private:
  DOVETAIL_HD constexpr std::uint32_t normal() const { return largest < 0x00800000u ? 0x00800000u : largest; }
  DOVETAIL_HD constexpr float size() const { return std::bit_cast<float>(wide() ? normal() | 1u : normal() & ~1u); }
};
/// The format that a block's scale tells.
DOVETAIL_HD constexpr format_8bit format_of(float scale) {
  return format_8bit::of(std::bit_cast<std::uint32_t>(scale) & 1u, scale < 0);
}
DOVETAIL_HD constexpr float from_8bit(std::uint8_t code, float scale) {
  format_8bit const f = format_of(scale);
  std::uint32_t const m = code & f.numbers, sign = (code & ~f.numbers & 0x80u) << 24;
  std::uint32_t const bits = m ? (m + f.before) << f.shift : 0;
  return std::bit_cast<float>(bits | sign) * (scale < 0 ? -scale : scale);
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
