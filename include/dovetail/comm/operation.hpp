// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace dovetail::comm {

/// How a reducing collective combines elements. Sums run in rank order and in fp32 for half types, with one
/// rounding at the end, so every backend gives the same bits.
enum class reduction : std::uint8_t { sum, min, max };

/// Bytes this rank has moved, counted as a bandwidth-optimal algorithm moves them over P ranks (S: bytes of the whole
/// array, s: bytes of the own shard): reduce_scatter sends S - s and receives (P-1)s; all_gather the converse;
/// all_reduce both; all_to_all S - s each way; broadcast: the root sends (P-1)S, the others receive S.
struct traffic {
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t operations = 0;

  friend constexpr bool operator==(traffic const&, traffic const&) = default;
  friend constexpr traffic operator-(traffic const& a, traffic const& b) {
    return {a.bytes_sent - b.bytes_sent, a.bytes_received - b.bytes_received, a.operations - b.operations};
  }
};

/// How much may be sent that is not received yet. A send beyond that waits for room, and fails after the deadline. A
/// message that is longer than all of it can be sent when there is no other.
struct mailbox_limits {
  std::size_t messages = 65536;
  std::size_t bytes = std::size_t{1} << 30;

  constexpr bool has_room(std::size_t messages_there, std::size_t bytes_there) const {
    return messages_there < messages && bytes_there < bytes;
  }
};

/// What a collective is of, in the words of whoever calls it; -1: nothing was said.
struct subject {
  std::int64_t step = -1, bucket = -1;
  friend constexpr bool operator==(subject const&, subject const&) = default;
};

/// After this long without progress an operation throws rank_lost and names the ranks that did not come.
inline constexpr std::chrono::milliseconds default_deadline{30'000};

}  // namespace dovetail::comm
