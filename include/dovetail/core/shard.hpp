// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

// How n things are divided among ranks or threads.
namespace dovetail {

/// A half-open range of indices.
struct range {
  std::size_t begin = 0, end = 0;
  constexpr std::size_t size() const { return end - begin; }
  constexpr bool empty() const { return begin == end; }
  friend constexpr bool operator==(range, range) = default;
};

/// The part of [0, n) that belongs to rank `rank` of `ranks`: contiguous, in rank order, sizes differ by at most one.
constexpr range shard(std::size_t n, int ranks, int rank) {
  auto const p = static_cast<std::size_t>(ranks), r = static_cast<std::size_t>(rank);
  auto const base = n / p, extra = n % p;
  auto const begin = r * base + (r < extra ? r : extra);
  return {begin, begin + base + (r < extra ? 1 : 0)};
}

}  // namespace dovetail
