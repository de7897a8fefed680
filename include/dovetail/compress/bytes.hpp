// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

// Numbers in payloads that are the same bytes on every processor (lowest byte first), and streams of bits for loops:
// what compress/bits.hpp does, with sizes that are known beforehand in place of a check of every number.
namespace dovetail::compress::detail {

template <class Word>
constexpr Word swapped_if_big(Word w) {
  if constexpr (std::endian::native == std::endian::little) return w;
  Word turned = 0;
  for (std::size_t i = 0; i < sizeof w; ++i) turned = static_cast<Word>(turned << 8 | ((w >> 8 * i) & 0xffu));
  return turned;
}
/// `Word` is an unsigned integer of 32 or 64 bits.
template <class Word>
Word load_word(std::byte const* from) {
  Word w;
  std::memcpy(&w, from, sizeof w);
  return swapped_if_big(w);
}
template <class Word>
void store_word(std::byte* to, Word w) {
  w = swapped_if_big(w);
  std::memcpy(to, &w, sizeof w);
}
inline float load_float(std::byte const* from) { return std::bit_cast<float>(load_word<std::uint32_t>(from)); }
inline void store_float(std::byte* to, float x) { store_word(to, std::bit_cast<std::uint32_t>(x)); }

/// Writes numbers of up to 32 bits behind each other, lowest bits first. The caller has seen to the room.
class bit_sink {
 public:
  explicit bit_sink(std::byte* to) : begin_(to), to_(to) {}
  void put(std::uint32_t value, int width) {
    bits_ |= std::uint64_t{value} << fill_;
    fill_ += width;
    if (fill_ < 32) return;
    store_word(to_, static_cast<std::uint32_t>(bits_));
    to_ += 4;
    bits_ >>= 32;
    fill_ -= 32;
  }
  /// Fills the last byte with zeros; the number of bytes in all.
  std::size_t finish() {
    for (; fill_ > 0; fill_ -= 8, bits_ >>= 8) *to_++ = static_cast<std::byte>(bits_);
    return static_cast<std::size_t>(to_ - begin_);
  }

 private:
  std::byte *begin_, *to_;
  std::uint64_t bits_ = 0;
  int fill_ = 0;
};

/// Reads what bit_sink has written. Behind the end there are zeros: who reads sees by `inside` that there is none.
class bit_source {
 public:
  explicit bit_source(std::span<std::byte const> in) : in_(in.data()), size_(in.size()) {}
  /// The next 57 bits, at least.
  std::uint64_t peek() const {
    std::size_t const byte = at_ / 8;
    if (byte + 8 <= size_) [[likely]]
      return load_word<std::uint64_t>(in_ + byte) >> (at_ % 8);
    std::uint64_t w = 0;
    for (std::size_t i = byte; i < size_; ++i) w |= std::to_integer<std::uint64_t>(in_[i]) << 8 * (i - byte);
    return w >> (at_ % 8);
  }
  void skip(int bits) { at_ += static_cast<std::size_t>(bits); }
  std::uint32_t get(int width) {
    auto const value = static_cast<std::uint32_t>(peek() & ((std::uint64_t{1} << width) - 1));
    skip(width);
    return value;
  }
  bool inside() const { return at_ <= 8 * size_; }
  /// True if all has been read, but for zeros that fill the last byte.
  bool at_end() const { return inside() && 8 * size_ - at_ < 8 && (at_ == 8 * size_ || peek() == 0); }

 private:
  std::byte const* in_;
  std::size_t size_, at_ = 0;
};

}  // namespace dovetail::compress::detail
