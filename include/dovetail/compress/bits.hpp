// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <dovetail/core/error.hpp>

// Numbers of any width from 1 to 64 bits in a payload, one behind the other without a gap: the first in the lowest bits
// of the first byte. The same bytes on every processor.
namespace dovetail::compress {

/// Bytes that `count` numbers of `width` bits take.
constexpr std::size_t bytes_of_bits(std::size_t count, int width) {
  auto const w = static_cast<std::size_t>(width);
  return count / 8 * w + (count % 8 * w + 7) / 8;  // without overflow for any count that fits in memory
}

namespace detail {
constexpr std::uint64_t lowest_bits(int width) {
  return width >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << width) - 1;
}
inline void require_width(char const* who, int width) {
  require(width >= 1 && width <= 64, who, ": a number of ", width, " bits: it has 1 to 64");
}
}  // namespace detail

/// Writes numbers behind each other. Throws argument_error for a number that its width cannot say, and where the memory
/// is full; what was written until then stands.
class bit_writer {
 public:
  explicit bit_writer(std::span<std::byte> out) : out_(out) {}

  void put(std::uint64_t value, int width) {
    detail::require_width("bit_writer", width);
    require((value & ~detail::lowest_bits(width)) == 0, "bit_writer: ", value, " does not fit in ", width, " bits");
    require(bits_ + static_cast<std::size_t>(width) <= 8 * out_.size(), "bit_writer: ", width, " bits behind ", bits_,
            " in a buffer of ", out_.size(), " bytes: size it by bytes_of_bits");
    while (width > 0) {
      std::size_t const at = bits_ / 8;
      int const used = static_cast<int>(bits_ % 8), now = std::min(width, 8 - used);
      auto const piece = static_cast<unsigned>(value & detail::lowest_bits(now)) << used;
      // A byte is written whole when its first bit is, so that no old bits remain behind the last number.
      out_[at] = used == 0 ? static_cast<std::byte>(piece) : out_[at] | static_cast<std::byte>(piece);
      value >>= now;
      width -= now;
      bits_ += static_cast<std::size_t>(now);
    }
  }
  /// Bytes that have been begun.
  std::size_t bytes() const { return (bits_ + 7) / 8; }

 private:
  std::span<std::byte> out_;
  std::size_t bits_ = 0;
};

/// Reads what bit_writer has written. Throws input_error behind the end: payloads come from outside.
class bit_reader {
 public:
  explicit bit_reader(std::span<std::byte const> in) : in_(in) {}

  std::uint64_t get(int width) {
    detail::require_width("bit_reader", width);
    require<input_error>(static_cast<std::size_t>(width) <= 8 * in_.size() - bits_, "bit_reader: ", width,
                         " bits behind ", bits_, " of a payload of ", in_.size(), " bytes: it is truncated");
    std::uint64_t value = 0;
    for (int have = 0; have < width;) {
      int const used = static_cast<int>(bits_ % 8), now = std::min(width - have, 8 - used);
      auto const byte = std::to_integer<std::uint64_t>(in_[bits_ / 8]) >> used;
      value |= (byte & detail::lowest_bits(now)) << have;
      have += now;
      bits_ += static_cast<std::size_t>(now);
    }
    return value;
  }
  /// Throws input_error unless everything has been read, but for zero bits that fill the last byte.
  void require_end() {
    require<input_error>(8 * in_.size() - bits_ < 8, "bit_reader: ", in_.size(), " bytes, of which ", bits_,
                         " bits are read: the payload is too long");
    auto const left = static_cast<int>(8 * in_.size() - bits_);
    require<input_error>(left == 0 || get(left) == 0,
                         "bit_reader: bits are set behind the last number: the payload is "
                         "damaged");
  }

 private:
  std::span<std::byte const> in_;
  std::size_t bits_ = 0;
};

}  // namespace dovetail::compress
