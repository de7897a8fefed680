// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/indices.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/rounded.hpp>

// k elements of a bucket in a payload: their values (f32, lowest byte first), then their indices as
// compress/indices.hpp writes them.
namespace dovetail::compress::detail {

constexpr std::size_t entries_size(std::size_t n, std::size_t k) { return 4 * k + indices_size(n, k); }

/// `pairs` are k times index and bits of the value, by rising index; afterwards the indices alone. Returns the bytes.
inline std::size_t write_entries(std::uint32_t* pairs, std::size_t k, std::size_t n, std::byte* out) {
  for (std::size_t i = 0; i < k; ++i) {
    store_word(out + 4 * i, pairs[2 * i + 1]);
    pairs[i] = pairs[2 * i];
  }
  return 4 * k + write_indices({pairs, k}, n, out + 4 * k);
}

/// Throws input_error unless `payload` is k entries of n elements.
inline void check_entries(std::string_view who, std::span<std::byte const> payload, std::size_t n, std::size_t k) {
  require<input_error>(k <= n && payload.size() / 4 >= k, who, ": a payload of ", payload.size(), " bytes with ", k,
                       " values of ", n, " elements: it is truncated or damaged");
  check_indices(who, payload.subspan(4 * k), n, k);
}
/// Adds what has been checked, times weight.
inline void add_entries(std::string_view who, std::span<std::byte const> payload, std::size_t k, std::span<float> out,
                        float weight) {
  index_reader reader(who, payload.subspan(4 * k), out.size(), k);
  for (std::size_t i = 0; i < k; ++i) out[reader.next()] += rounded(weight * load_float(payload.data() + 4 * i));
}

/// Checks them, and gives index and bits of the value of each.
inline void read_entries(std::string_view who, std::span<std::byte const> payload, std::size_t n, std::size_t k,
                         std::span<std::uint32_t> pairs) {
  check_entries(who, payload, n, k);
  index_reader reader(who, payload.subspan(4 * k), n, k);
  for (std::size_t i = 0; i < k; ++i) {
    pairs[2 * i] = reader.next();
    pairs[2 * i + 1] = load_word<std::uint32_t>(payload.data() + 4 * i);
  }
}

}  // namespace dovetail::compress::detail
