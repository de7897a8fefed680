// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include <dovetail/compress/bits.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

// What quantisers have in common that send one fp32 scale a block and one small code an element. A payload is the
// scales, then the codes of all elements, one behind the other without a gap at the ends of blocks.
namespace dovetail::compress {

/// What the scale of a block of gradients is made of.
enum class norm : unsigned char {
  max,  ///< max |x|
  l2,   ///< (Σ x²)^½
  l1    ///< Σ |x|
};

/// How codes lie in a payload.
enum class packing : unsigned char {
  bits,  ///< each in as many bits as the largest needs
  base3  ///< five of three values a byte, as the digits of a number below 243, the first the lowest: 1.6 bits each
};

namespace detail {

/// The codes of one payload: how many bytes, and how they get there.
struct code_packing {
  int width;  ///< bits; 0: five digits of base 3 a byte

  constexpr std::size_t bytes(std::size_t n) const { return width ? bytes_of_bits(n, width) : n / 5 + (n % 5 != 0); }
  void pack(std::uint8_t const* codes, std::size_t n, std::byte* out, quantize::kernel_set const& kernel) const {
    if (width) return kernel.pack_bits(codes, n, width, out);
    std::size_t i = 0;
    for (; i + 5 <= n; i += 5)
      out[i / 5] = static_cast<std::byte>(codes[i] + 3 * codes[i + 1] + 9 * codes[i + 2] + 27 * codes[i + 3] +
                                          81 * codes[i + 4]);
    if (i == n) return;
    unsigned byte = 0;
    for (std::size_t j = n; j-- > i;) byte = 3 * byte + codes[j];
    out[i / 5] = static_cast<std::byte>(byte);
  }
  void unpack(std::byte const* in, std::size_t n, std::uint8_t* codes, quantize::kernel_set const& kernel) const {
    if (width) return kernel.unpack_bits(in, n, width, codes);
    for (std::size_t i = 0; i < n; i += 5) {
      // Digit d of a byte below 256, exactly: multiplications by a rounded reciprocal, and no division.
      std::uint32_t const b = std::to_integer<std::uint32_t>(in[i / 5]);
      std::uint32_t const b3 = b * 171 >> 9, b9 = b * 57 >> 9, b27 = b * 19 >> 9, b81 = b * 203 >> 14;
      std::uint8_t const five[5] = {static_cast<std::uint8_t>(b - 3 * b3), static_cast<std::uint8_t>(b3 - 3 * b9),
                                    static_cast<std::uint8_t>(b9 - 3 * b27), static_cast<std::uint8_t>(b27 - 3 * b81),
                                    static_cast<std::uint8_t>(b81)};
      std::memcpy(codes + i, five, std::min<std::size_t>(5, n - i));
    }
  }
  /// Throws input_error where something is set behind the last code, or a byte is no number of five digits.
  void check(std::string_view who, std::span<std::byte const> in, std::size_t n) const {
    if (in.empty()) return;
    auto const last = std::to_integer<unsigned>(in.back());
    if (width) {
      auto const used = static_cast<unsigned>(n % 8 * static_cast<std::size_t>(width) % 8);
      require<input_error>(used == 0 || last >> used == 0, who, ": a payload of ", n,
                           " elements has bits set behind the last one: it is damaged");
      return;
    }
    for (std::size_t i = 0; i < in.size(); ++i)
      if (std::to_integer<unsigned>(in[i]) > 242) refuse_byte(who, i, in[i]);
    constexpr unsigned below[5] = {243, 3, 9, 27, 81};
    require<input_error>(last < below[n % 5], who, ": a payload of ", n,
                         " elements has digits set behind the last one: it is damaged");
  }

 private:
  [[noreturn]] DOVETAIL_COLD static void refuse_byte(std::string_view who, std::size_t i, std::byte b) {
    throw input_error(message(who, ": byte ", i, " of the codes is ", std::to_integer<unsigned>(b),
                              ": five digits of base 3 are below 243, the payload is damaged"));
  }
};

/// Blocks of a bucket of n elements; `block` 0 makes it one.
struct block_count {
  std::size_t n, block;
  constexpr std::size_t length() const { return block ? block : n; }
  constexpr std::size_t blocks() const { return n == 0 ? 0 : block ? (n - 1) / block + 1 : 1; }
};

/// What a block is divided by, found in a way that neither overflows nor loses small numbers.
struct block_scale {
  float stored = 0;   ///< the norm; not finite where an element, or the norm, is not
  float power = 1;    ///< of two, that takes the block into the middle of fp32's range
  float inverse = 0;  ///< 1 / (norm · power)
  DOVETAIL_HD bool empty() const { return !(stored > 0) || !is_finite(stored); }  ///< no codes but that of 0
};
/// The power of a block by the bits of its largest magnitude.
DOVETAIL_HD constexpr float power_for(std::int32_t largest) {
  return largest < 0x20000000 ? 0x1p100f : largest > 0x5f000000 ? 0x1p-80f : 1.0f;  // below 2^-63, above 2^63
}
/// Whether the norm of such a block is a sum over its elements.
DOVETAIL_HD constexpr bool needs_sum(std::int32_t largest, norm of) {
  return of != norm::max && largest > 0 && largest < 0x7f800000;
}
/// `sum` is of power · |x|, or of the squares of that; of norm::max it is not needed.
DOVETAIL_HD inline block_scale scale_from(std::int32_t largest, norm of, double sum) {
  if (largest == 0) return {};
  if (largest >= 0x7f800000)
    return {largest > 0x7f800000 ? not_a_number<float>() : std::bit_cast<float>(largest), 1, 0};
  block_scale s;
  s.power = power_for(largest);
  auto const power = static_cast<double>(s.power);
  if (of == norm::max) sum = static_cast<double>(std::bit_cast<float>(largest)) * power;
  if (of == norm::l2) sum = std::sqrt(sum);
  s.stored = static_cast<float>(sum / power);
  s.inverse = static_cast<float>(1 / sum);
  return s;
}
inline block_scale scale_of(std::span<float const> x, norm of, quantize::kernel_set const& kernel) {
  std::int32_t const largest = kernel.largest_magnitude(x.data(), x.size());
  if (!needs_sum(largest, of)) return scale_from(largest, of, 0);
  float const power = power_for(largest);
  return scale_from(largest, of,
                    of == norm::l2 ? kernel.sum_squares(x.data(), x.size(), power)
                                   : kernel.sum_magnitudes(x.data(), x.size(), power));
}

/// A multiple of payload_step: chunks end with a byte, whatever the packing.
inline constexpr std::size_t chunk_of_codes = 16 * payload_step;

/// Writes scales and codes. `put(scale, x, first, codes)` makes the codes of a part of a block, which begins at element
/// `first` of the bucket; where the scale is empty they are all `zero`.
template <class Put>
std::size_t encode_blocks(std::span<float const> x, block_count blocks, norm of, code_packing pack, std::uint8_t zero,
                          std::span<std::byte> out, quantize::kernel_set const& kernel, Put const& put) {
  std::size_t const n = x.size(), count = blocks.blocks(), length = blocks.length();
  std::byte* const to = out.data() + 4 * count;
  std::uint8_t codes[chunk_of_codes + 64];
  block_scale scale;
  for (std::size_t at = 0; at < n; at += chunk_of_codes) {
    std::size_t const end = std::min(n, at + chunk_of_codes);
    for (std::size_t i = at; i < end;) {
      std::size_t const block = i / length, begin = block * length, stop = std::min(end, begin + length);
      if (i == begin) {
        scale = scale_of(x.subspan(begin, std::min(length, n - begin)), of, kernel);
        std::memcpy(out.data() + 4 * block, &scale.stored, 4);
      }
      if (scale.empty())
        std::memset(codes + (i - at), zero, stop - i);
      else
        put(scale, x.subspan(i, stop - i), static_cast<std::uint32_t>(i), codes + (i - at));
      i = stop;
    }
    pack.pack(codes, end - at, to + pack.bytes(at), kernel);
  }
  return 4 * count + pack.bytes(n);
}

/// What encode_blocks has written, after everything of it is checked.
class block_payload {
 public:
  block_payload(std::string_view who, std::span<std::byte const> payload, block_count blocks, code_packing pack)
      : payload_(payload), blocks_(blocks), pack_(pack), codes_(4 * blocks.blocks()) {
    require_payload(who, blocks.n, codes_ + pack.bytes(blocks.n), payload);
    for (std::size_t i = 0; 4 * i < codes_; ++i)
      require<input_error>(std::bit_cast<std::uint32_t>(scale(i)) >> 31 == 0, who, ": block ", i, " has the scale ",
                           scale(i), ", a norm is not negative: the payload is damaged");
    pack.check(who, payload.subspan(codes_), blocks.n);
  }
  std::size_t size() const { return blocks_.n; }
  std::size_t bytes() const { return payload_.size(); }

  /// Elements from `first` on, a multiple of payload_step, as many as `out` has: `add(scale, codes, n, out)`.
  template <class Add>
  void each_block(std::size_t first, std::span<float> out, quantize::kernel_set const& kernel, Add const& add) const {
    std::size_t const n = first + out.size(), length = blocks_.length();
    std::uint8_t room[chunk_of_codes + 64];
    for (std::size_t at = first; at < n; at += chunk_of_codes) {
      std::size_t const end = std::min(n, at + chunk_of_codes);
      std::byte const* const from = payload_.data() + codes_ + pack_.bytes(at);
      auto const* codes = reinterpret_cast<std::uint8_t const*>(from);  // of 8 bits each, where they are
      if (pack_.width != 8) {
        pack_.unpack(from, end - at, room, kernel);
        codes = room;
      }
      for (std::size_t i = at; i < end;) {
        std::size_t const block = i / length, stop = std::min(end, (block + 1) * length);
        add(scale(block), codes + (i - at), stop - i, out.data() + (i - first));
        i = stop;
      }
    }
  }

 private:
  float scale(std::size_t i) const {
    float s;
    std::memcpy(&s, payload_.data() + 4 * i, 4);
    return s;
  }

  std::span<std::byte const> payload_;
  block_count blocks_;
  code_packing pack_;
  std::size_t codes_;  ///< where they begin
};

/// Adds what encode_blocks has written, after everything of it is checked: `add(scale, codes, n, out)`.
template <class Add>
void decode_blocks(std::string_view who, std::span<std::byte const> payload, block_count blocks, code_packing pack,
                   std::span<float> out, quantize::kernel_set const& kernel, Add const& add) {
  block_payload(who, payload, blocks, pack).each_block(0, out, kernel, add);
}

}  // namespace detail
}  // namespace dovetail::compress
