// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <ostream>

#include <dovetail/comm/operation.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>

// What ranks ask of each other, as a value: engines compare and print it.
namespace dovetail::comm {

/// Types whose arrays can be reduced. Integers wrap around; fp16 and bf16 are combined in fp32 and rounded once.
template <class T>
concept reducible =
    std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, fp16> || std::same_as<T, bf16> ||
    std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t> || std::same_as<T, std::uint8_t> ||
    std::same_as<T, std::uint16_t> || std::same_as<T, std::uint32_t> || std::same_as<T, std::uint64_t>;

/// Types whose arrays can be moved.
template <class T>
concept movable = reducible<T> || std::same_as<T, std::byte>;

enum class operation : std::uint8_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_gather_v,
  all_to_all,
  broadcast,
  send,
  recv,
  barrier,
  split,
  wait_message,
  shrink
};

constexpr char const* name_of(operation op) {
  constexpr char const* names[] = {"all_reduce", "reduce_scatter", "all_gather",   "all_gather_v",
                                   "all_to_all", "broadcast",      "send",         "recv",
                                   "barrier",    "split",          "wait_message", "shrink"};
  auto const i = static_cast<std::size_t>(op);
  return i < std::size(names) ? names[i] : "an unknown operation";  // it may come from another process
}
constexpr char const* name_of(reduction how) {
  constexpr char const* names[] = {"sum", "min", "max"};
  return names[static_cast<std::size_t>(how)];
}
constexpr char const* name_of(dtype t) {
  constexpr char const* names[] = {"f64", "f32", "f16", "bf16", "i64", "i32", "u64", "u32", "u16", "u8"};
  return names[static_cast<std::size_t>(t)];
}

/// What a rank asks for: the part of an operation that must be the same on every rank.
struct call {
  operation op = operation::barrier;
  dtype type = dtype::u8;
  reduction how = reduction::sum;
  int root = -1;          ///< of a broadcast; the peer of a send, recv or wait_message
  std::size_t count = 0;  ///< elements of the whole array; 0 where ranks may differ (all_gather_v)
  subject about{};

  std::size_t bytes() const { return count * size_of(type); }
  /// Bytes of `rank`'s shard of the array.
  range shard_bytes(int ranks, int rank) const {
    auto const s = shard(count, ranks, rank);
    return {s.begin * size_of(type), s.end * size_of(type)};
  }
  friend bool operator==(call const&, call const&) = default;
  friend std::ostream& operator<<(std::ostream& out, call const& c) {
    out << name_of(c.op);
    if (c.op == operation::wait_message) return c.root < 0 ? out << " from any rank" : out << " from rank " << c.root;
    if (c.op == operation::all_reduce || c.op == operation::reduce_scatter) out << '(' << name_of(c.how) << ')';
    if (c.op != operation::barrier && c.op != operation::split && c.op != operation::shrink &&
        c.op != operation::all_gather_v) {
      out << " of " << c.count << ' ' << name_of(c.type);
      if (c.op == operation::broadcast || c.op == operation::recv) out << " from rank " << c.root;
      if (c.op == operation::send) out << " to rank " << c.root;
    }
    if (c.about.step >= 0) out << " (step " << c.about.step << ", bucket " << c.about.bucket << ')';
    return out;
  }
};

/// Of ranks that should all have called the same, the first that differs from what most called (in doubt from what the
/// lower ranks called); calls.size() when they agree. A function of the calls alone: all ranks name the same rank.
template <class Calls>
std::size_t odd_one_out(Calls const& calls) {
  std::size_t const n = calls.size();
  std::size_t usual = 0, most = 0, odd = 0;
  for (std::size_t r = 0; r < n; ++r) {
    std::size_t same = 0;
    for (std::size_t q = 0; q < n; ++q) same += calls[q] == calls[r];
    if (same > most) most = same, usual = r;
  }
  while (odd < n && calls[odd] == calls[usual]) ++odd;
  return odd;
}

}  // namespace dovetail::comm
