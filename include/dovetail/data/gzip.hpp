// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

// Data sets come compressed. A reader of gzip is a page of code; a library for it would be a dependency of every
// program that reads one.
namespace dovetail::data {

namespace detail {

/// Bits of a DEFLATE stream, the lowest of each byte first.
class bit_reader {
 public:
  bit_reader(std::span<std::uint8_t const> in, std::filesystem::path const& path) : in_(in), path_(&path) {}

  std::uint32_t take(int n) {
    auto const v = peek(n);
    drop(n);
    return v;
  }
  /// The next n <= 16 bits, zeros behind the end.
  std::uint32_t peek(int n) {
    for (; count_ < n && at_ < in_.size(); count_ += 8) bits_ |= std::uint32_t{in_[at_++]} << count_;
    return bits_ & ((std::uint32_t{1} << n) - 1);
  }
  void drop(int n) {
    if (n > count_) fail("it ends in the middle");
    bits_ >>= n;
    count_ -= n;
  }
  std::uint32_t word() {
    auto const low = take(16);
    return low | take(16) << 16;
  }
  void to_byte() { drop(count_ % 8); }
  std::span<std::uint8_t const> take_bytes(std::size_t n) {  // at the beginning of a byte
    at_ -= static_cast<std::size_t>(count_ / 8);
    bits_ = 0;
    count_ = 0;
    if (n > in_.size() - at_) fail("it ends in the middle");
    return in_.subspan(std::exchange(at_, at_ + n), n);
  }
  std::size_t left() const { return in_.size() - at_ + static_cast<std::size_t>(count_ / 8); }
  [[noreturn]] DOVETAIL_COLD void fail(char const* why) const {
    throw input_error(message(*path_, " cannot be unpacked: ", why, ": download it again"));
  }

 private:
  std::span<std::uint8_t const> in_;
  std::filesystem::path const* path_;
  std::size_t at_ = 0;
  std::uint32_t bits_ = 0;
  int count_ = 0;
};

/// A Huffman code (RFC 1951, 3.2.2) as one table of all 15-bit words: symbol × 16 + length of the code that the word
/// begins with, 0 where none does.
class huffman {
 public:
  huffman(std::span<std::uint8_t const> lengths, bit_reader const& in) : table_(1u << 15) {
    std::array<std::uint32_t, 16> count{}, next{};
    for (auto const n : lengths) ++count[n];
    count[0] = 0;
    std::uint32_t code = 0;
    for (std::size_t n = 1; n < 16; ++n) {
      next[n] = code = (code + count[n - 1]) << 1;
      if (code + count[n] > 1u << n) in.fail("a code has more words than fit");
    }
    for (std::uint32_t symbol = 0; symbol < lengths.size(); ++symbol)
      if (std::uint32_t const n = lengths[symbol]) {
        std::uint32_t reversed = 0;  // codes come highest bit first
        for (std::uint32_t b = 0, c = next[n]++; b < n; ++b, c >>= 1) reversed = reversed << 1 | (c & 1);
        for (auto word = reversed; word < table_.size(); word += 1u << n)
          table_[word] = static_cast<std::uint16_t>(symbol << 4 | n);
      }
  }
  std::uint32_t next(bit_reader& in) const {
    std::uint32_t const found = table_[in.peek(15)];
    if (!found) in.fail("a code is unknown");
    in.drop(static_cast<int>(found & 15));
    return found >> 4;
  }

 private:
  std::vector<std::uint16_t> table_;
};

/// One DEFLATE stream behind `out`; ends early when `out` has `limit` bytes, and then returns false.
inline bool inflate(bit_reader& in, std::vector<std::uint8_t>& out, std::size_t limit) {
  static constexpr std::array<std::uint16_t, 29> lengths{3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                         15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                         67, 83, 99, 115, 131, 163, 195, 227, 258};
  static constexpr std::array<std::uint16_t, 30> distances{
      1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
      193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  static constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  std::size_t const begin = out.size();  // what lies before belongs to another stream
  for (bool last = false; !last;) {
    last = in.take(1);
    auto const kind = in.take(2);
    if (kind == 0) {
      in.to_byte();
      auto const n = in.take(16);
      if ((in.take(16) ^ n) != 0xffff) in.fail("a length contradicts its complement");
      auto const bytes = in.take_bytes(n);
      out.insert(out.end(), bytes.begin(), bytes.end());
      if (out.size() >= limit) return false;
      continue;
    }
    if (kind == 3) in.fail("a block is of no known kind");
    std::array<std::uint8_t, 320> code{};
    std::size_t literals = 288, offsets = 30;
    if (kind == 1) {
      for (std::size_t i = 0; i < 288; ++i) code[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
      std::fill_n(code.begin() + 288, 30, std::uint8_t{5});
    } else {
      literals = in.take(5) + 257, offsets = in.take(5) + 1;
      if (literals > 286 || offsets > 30) in.fail("a code has too many symbols");
      std::array<std::uint8_t, 19> first{};
      for (std::size_t i = 0, n = in.take(4) + 4; i < n; ++i) first[order[i]] = static_cast<std::uint8_t>(in.take(3));
      huffman const lengths_code(first, in);
      for (std::size_t i = 0; i < literals + offsets;) {
        auto const symbol = lengths_code.next(in);
        if (symbol == 16 && i == 0) in.fail("a length repeats nothing");
        std::uint8_t const value = symbol < 16 ? static_cast<std::uint8_t>(symbol) : symbol == 16 ? code[i - 1] : 0;
        std::size_t const times = symbol < 16    ? 1
                                  : symbol == 16 ? 3 + in.take(2)
                                  : symbol == 17 ? 3 + in.take(3)
                                                 : 11 + in.take(7);
        if (times > literals + offsets - i) in.fail("a length repeats too often");
        std::fill_n(code.begin() + static_cast<std::ptrdiff_t>(i), times, value);
        i += times;
      }
    }
    huffman const words({code.data(), literals}, in), back({code.data() + literals, offsets}, in);
    for (std::uint32_t symbol; (symbol = words.next(in)) != 256;) {
      if (symbol < 256) {
        out.push_back(static_cast<std::uint8_t>(symbol));
      } else {
        if (symbol > 285) in.fail("a length is unknown");
        std::size_t const l = symbol - 257;
        std::size_t const n = lengths[l] + (l < 8 || l == 28 ? 0 : in.take(static_cast<int>(l / 4 - 1)));
        std::size_t const o = back.next(in);
        std::size_t const distance = distances[o] + (o < 4 ? 0 : in.take(static_cast<int>(o / 2 - 1)));
        if (distance > out.size() - begin) in.fail("it refers to what lies before its beginning");
        out.resize(out.size() + n);
        auto* const to = out.data() + out.size() - n;
        for (std::size_t i = 0; i < n; ++i) to[i] = to[i - static_cast<std::ptrdiff_t>(distance)];
      }
      if (out.size() >= limit) return false;
    }
  }
  return true;
}

inline std::uint32_t crc32_ieee(std::span<std::uint8_t const> bytes) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int k = 0; k < 8; ++k) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0xedb88320u : 0);
    }
    return t;
  }();
  std::uint32_t c = ~std::uint32_t{0};
  for (auto const b : bytes) c = table[(c ^ b) & 0xff] ^ c >> 8;
  return ~c;
}

}  // namespace detail

inline bool is_gzip(std::span<std::uint8_t const> bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

/// The contents of a gzip file (RFC 1952) whose bytes are given, at least the first `limit` of them if there are so
/// many: a file can unpack to a thousand times its size. Throws input_error, with `path`, when they are damaged.
inline std::vector<std::uint8_t> gunzip(std::span<std::uint8_t const> bytes, std::filesystem::path const& path,
                                        std::size_t limit = std::numeric_limits<std::size_t>::max()) {
  std::vector<std::uint8_t> out;
  detail::bit_reader in(bytes, path);
  do {  // a file may have several members
    auto const head = in.take_bytes(10);
    if (!is_gzip(head) || head[2] != 8) in.fail("what is there is not gzip");
    auto const flags = head[3];
    if (flags & 0xe0) in.fail("its header has unknown flags");
    if (flags & 4) in.take_bytes(in.take(16));  // extra fields
    for (int const strings : {8, 16})           // name, comment
      while ((flags & strings) && in.take(8) != 0) {
      }
    if (flags & 2) in.take(16);  // of the header
    std::size_t const begin = out.size();
    if (!detail::inflate(in, out, limit)) return out;
    in.to_byte();
    auto const crc = in.word(), size = in.word();
    auto const member = std::span(out).subspan(begin);
    if (size != static_cast<std::uint32_t>(member.size()) || crc != detail::crc32_ieee(member))
      in.fail("its checksum is wrong");
  } while (in.left() > 0);
  return out;
}

}  // namespace dovetail::data
