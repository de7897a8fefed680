// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

// Rising indices in a payload, in about the fewest bits that there are for places without a pattern.
//
// One byte says the form, and the indices follow:
//   0 … 31   Rice codes with that parameter r. Of each index the gap to the one before (less one) is written, the first
//            one's to −1: gap >> r zeros, a one, then the r low bits of the gap, lowest first. Zeros fill the last
//            byte.
//   255      a bitmap, a bit an element, lowest bits first. Zeros fill the last byte.
// None of n and all of n take no byte at all. Random places of 1 % of the elements take 8.10 bits an index (the entropy
// is 8.08), of 0.1 % 11.4; packed gaps of one width, which the largest gap decides, take 11 and 14.
//
// The gaps of k indices below n add up to n − k at most, so k Rice codes have at most k (r + 1) + (n − k) / 2^r bits,
// wherever the indices are: with the r of `rice_parameter` at most log2(n / k) + 3 bits an index. No index needs an
// escape.
//
// Source: Rice and Plaunt, "Adaptive Variable-Length Coding for Efficient Compression of Spacecraft Television Data",
// IEEE Trans. Communication Technology 1971.
namespace dovetail::compress {

namespace detail {
constexpr unsigned char bitmap_form = 255;

/// floor(log2((n − k) / k)), at least 0.
constexpr int rice_parameter(std::size_t n, std::size_t k) {
  auto const width = static_cast<int>(std::bit_width((n - k) / k));
  return width > 0 ? width - 1 : 0;
}

[[noreturn]] DOVETAIL_COLD inline void refuse_indices(std::string_view who, char const* what, std::size_t k,
                                                      std::size_t n) {
  throw input_error(message(who, ": the indices of ", k, " elements of ", n, " ", what, ": the payload is damaged"));
}
}  // namespace detail

/// Bytes that k rising indices below n take at most, n below 2^32. It does not fall where k grows, up to n − 1.
constexpr std::size_t indices_size(std::size_t n, std::size_t k) {
  if (k == 0 || k >= n) return 0;
  int const r = detail::rice_parameter(n, k);
  return 1 + (std::min(n, k * static_cast<std::size_t>(r + 1) + ((n - k) >> r)) + 7) / 8;
}
/// The same of any number of indices up to k.
constexpr std::size_t indices_size_up_to(std::size_t n, std::size_t k) {
  return n == 0 ? 0 : indices_size(n, std::min(k, n - 1));
}

/// Writes them to `out`, which has room for indices_size; returns the number of bytes.
inline std::size_t write_indices(std::span<std::uint32_t const> rising, std::size_t n, std::byte* out) {
  std::size_t const k = rising.size();
  if (k == 0 || k >= n) return 0;
  // Where indices lie together, most gaps are short and a smaller parameter is better than what their number says.
  int const high = detail::rice_parameter(n, k), low = std::max(0, high - 2), middle = std::max(0, high - 1);
  std::size_t of_low = 0, of_middle = 0, of_high = 0;
  std::uint32_t next = 0;
  for (std::uint32_t const index : rising) {
    std::uint32_t const gap = index - next;
    of_low += gap >> low, of_middle += gap >> middle, of_high += gap >> high;
    next = index + 1;
  }
  of_low += k * static_cast<std::size_t>(low + 1);
  of_middle += k * static_cast<std::size_t>(middle + 1);
  of_high += k * static_cast<std::size_t>(high + 1);
  std::size_t const fewest = std::min({of_low, of_middle, of_high});

  detail::bit_sink sink(out + 1);
  next = 0;
  if (n <= fewest) {
    out[0] = std::byte{detail::bitmap_form};
    std::fill_n(out + 1, (n + 7) / 8, std::byte{0});
    for (std::uint32_t const index : rising) out[1 + index / 8] |= static_cast<std::byte>(1u << (index % 8));
    return 1 + (n + 7) / 8;
  }
  int const r = fewest == of_high ? high : fewest == of_middle ? middle : low;
  out[0] = static_cast<std::byte>(r);
  for (std::uint32_t const index : rising) {
    std::uint32_t const gap = index - next;
    std::uint32_t zeros = gap >> r;
    for (; zeros >= 31; zeros -= 31) sink.put(0, 31);
    sink.put(1u << zeros, static_cast<int>(zeros) + 1);
    sink.put(gap & ((1u << r) - 1), r);
    next = index + 1;
  }
  return 1 + sink.finish();
}

/// Reads what write_indices has written. `next` is called k times, then `finish`; both throw input_error for bytes that
/// it did not write so. Whatever the bytes are, indices rise and lie below n.
class index_reader {
 public:
  index_reader(std::string_view who, std::span<std::byte const> in, std::size_t n, std::size_t k)
      : who_(who), n_(n), k_(k), in_(in), source_({}) {
    if (k > n) fail("are more than there are");
    if (k == 0 || k == n) {
      if (!in.empty()) fail("take no bytes");
      parameter_ = all;
      return;
    }
    if (in.empty()) fail("are missing");
    parameter_ = std::to_integer<int>(in[0]);
    in_ = in.subspan(1);
    if (parameter_ == detail::bitmap_form) {
      if (in_.size() != (n + 7) / 8) fail("are a bitmap of another size");
      parameter_ = bitmap;
      word_ = word(0);
    } else {
      if (parameter_ > 31) fail("have a form that there is not");
      source_ = detail::bit_source(in_);
    }
  }

  std::uint32_t next() {
    if (parameter_ >= 0) [[likely]]
      return next_rice();
    if (parameter_ == all) return static_cast<std::uint32_t>(next_++);
    return next_bit();
  }
  /// After k indices: nothing may be left.
  void finish() {
    if (parameter_ >= 0) {
      if (!source_.at_end()) fail("do not end where the payload does");
    } else if (parameter_ == bitmap) {
      for (; word_ == 0 && at_ + 8 < in_.size(); word_ = word(at_)) at_ += 8;
      if (word_ != 0) fail("are fewer than the bits of their bitmap");
    }
  }

 private:
  static constexpr int all = -1, bitmap = -2;

  std::uint32_t next_rice() {
    std::uint64_t window = source_.peek();
    int const r = parameter_;
    int zeros = std::countr_zero(window);
    std::uint64_t gap;
    if (zeros + 1 + r <= 57) [[likely]] {
      gap = (static_cast<std::uint64_t>(zeros) << r) | ((window >> zeros >> 1) & ((std::uint64_t{1} << r) - 1));
      source_.skip(zeros + 1 + r);
    } else {
      std::uint64_t many = 0;
      for (; (window & ((std::uint64_t{1} << 57) - 1)) == 0; window = source_.peek()) {
        many += 57;
        source_.skip(57);
        if (many > n_ >> r || !source_.inside()) fail("have a gap that is too long");
      }
      zeros = std::countr_zero(window);
      many += static_cast<std::uint64_t>(zeros);
      source_.skip(zeros + 1);
      gap = (many << r) | source_.get(r);
    }
    std::uint64_t const index = next_ + gap;
    if (index >= n_ || !source_.inside()) [[unlikely]]
      fail(source_.inside() ? "lie outside" : "are truncated");
    next_ = index + 1;
    return static_cast<std::uint32_t>(index);
  }
  std::uint32_t next_bit() {
    while (word_ == 0) {
      at_ += 8;
      if (at_ >= in_.size()) fail("are more than the bits of their bitmap");
      word_ = word(at_);
    }
    std::uint64_t const index = 8 * at_ + static_cast<std::uint64_t>(std::countr_zero(word_));
    word_ &= word_ - 1;
    if (index >= n_) fail("lie outside");
    return static_cast<std::uint32_t>(index);
  }
  std::uint64_t word(std::size_t byte) const {
    if (byte + 8 <= in_.size()) return detail::load_word<std::uint64_t>(in_.data() + byte);
    std::uint64_t w = 0;
    for (std::size_t i = byte; i < in_.size(); ++i) w |= std::to_integer<std::uint64_t>(in_[i]) << 8 * (i - byte);
    return w;
  }
  [[noreturn]] DOVETAIL_COLD void fail(char const* what) const { detail::refuse_indices(who_, what, k_, n_); }

  std::string_view who_;
  std::size_t n_, k_;
  std::span<std::byte const> in_;
  detail::bit_source source_;
  int parameter_ = 0;
  std::uint64_t next_ = 0;
  std::uint64_t word_ = 0;
  std::size_t at_ = 0;
};

/// Throws input_error unless `in` holds k rising indices below n.
inline void check_indices(std::string_view who, std::span<std::byte const> in, std::size_t n, std::size_t k) {
  index_reader reader(who, in, n, k);
  for (std::size_t i = 0; i < k; ++i) reader.next();
  reader.finish();
}

}  // namespace dovetail::compress
