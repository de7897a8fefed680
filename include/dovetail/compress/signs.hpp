// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/indices.hpp>
#include <dovetail/core/error.hpp>

// Elements of a bucket that are all of one magnitude, in a payload: their number (u32, lowest byte first), a bit of
// sign each (1 = negative, zeros fill the last byte), then their indices as compress/indices.hpp writes them. The
// number 2^32 − 1 alone says that something was not finite.
namespace dovetail::compress::detail {

/// Bytes of up to k signs of n elements at most.
constexpr std::size_t signed_size(std::size_t n, std::size_t k) { return 4 + (k + 7) / 8 + indices_size_up_to(n, k); }

/// `values` are the bits of floats whose signs are sent.
inline std::size_t write_signed(std::uint32_t const* indices, std::uint32_t const* values, std::size_t k, std::size_t n,
                                std::byte* out) {
  store_word(out, static_cast<std::uint32_t>(k));
  std::byte* const signs = out + 4;
  std::size_t const bytes = (k + 7) / 8;
  for (std::size_t i = 0; i < bytes; ++i) {
    unsigned eight = 0;
    for (std::size_t j = 8 * i; j < std::min(8 * i + 8, k); ++j) eight |= values[j] >> 31 << (j % 8);
    signs[i] = static_cast<std::byte>(eight);
  }
  return 4 + bytes + write_indices({indices, k}, n, signs + bytes);
}
inline std::size_t write_non_finite(std::byte* out) {
  store_word(out, 0xffffffffu);
  return 4;
}
inline bool is_non_finite(std::span<std::byte const> payload) {
  return payload.size() == 4 && load_word<std::uint32_t>(payload.data()) == 0xffffffffu;
}

/// Adds magnitude(index) or its negative to the elements of a payload that is all signs; throws input_error, before
/// anything is added, unless it is one of out.size() elements.
template <class Magnitude>
void add_signed(std::string_view who, std::span<std::byte const> payload, std::span<float> out, Magnitude magnitude) {
  std::size_t const n = out.size();
  require<input_error>(payload.size() >= 4, who, ": a payload of ", payload.size(), " bytes for ", n,
                       " elements: it is truncated");
  std::size_t const k = load_word<std::uint32_t>(payload.data()), bytes = (k + 7) / 8;
  require<input_error>(k <= n && payload.size() - 4 >= bytes, who, ": a payload of ", payload.size(), " bytes with ", k,
                       " signs of ", n, " elements: it is truncated or damaged");
  auto const signs = payload.subspan(4, bytes), indices = payload.subspan(4 + bytes);
  require<input_error>(k % 8 == 0 || std::to_integer<unsigned>(signs.back()) >> (k % 8) == 0, who,
                       ": bits are set behind the last sign: the payload is damaged");
  check_indices(who, indices, n, k);
  index_reader reader(who, indices, n, k);
  for (std::size_t i = 0; i < k; ++i) {
    std::uint32_t const index = reader.next();
    std::uint32_t const negative = (std::to_integer<std::uint32_t>(signs[i / 8]) >> (i % 8)) & 1u;
    float const added = magnitude(index);
    out[index] += std::bit_cast<float>(std::bit_cast<std::uint32_t>(added) ^ negative << 31);
  }
}

}  // namespace dovetail::compress::detail
