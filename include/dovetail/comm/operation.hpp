// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace dovetail::comm {

/// How a reducing collective combines elements. Sums run in rank order and in fp32 for half types, with one
/// rounding at the end, so every backend gives the same bits.
enum class reduction : std::uint8_t { sum, min, max };

/// What a communicator promises of the order in which floating point numbers are added:
///   rank_order    ((x_0 + x_1) + x_2) + …, halves in fp32 and rounded once: the same bits on every backend
///   same_on_all   another order, and halves may be rounded after every addition, but all ranks get the same bits:
///                 enough for replicas to stay equal. This library's algorithms repeat them in every run with as many
///                 ranks and elements; MPI and NCCL may not
///   unspecified   ranks may get different bits
enum class sum_order : std::uint8_t { rank_order, same_on_all, unspecified };

constexpr char const* name_of(sum_order s) {
  constexpr char const* names[] = {"rank_order", "same_on_all", "unspecified"};
  return names[static_cast<std::size_t>(s)];
}
/// What is left of two promises.
constexpr sum_order weaker(sum_order a, sum_order b) { return a < b ? b : a; }

/// Bytes this rank has moved. A communicator's own operations are counted as a bandwidth-optimal algorithm moves them
/// over P ranks (S: bytes of the whole array, s: bytes of the own shard): reduce_scatter sends S - s and receives
/// (P-1)s; all_gather the converse; all_reduce both; all_to_all S - s each way; broadcast: the root sends (P-1)S, the
/// others receive S. With an algorithm (comm/algorithms.hpp) they are those of its messages. What leaves the host is
/// counted in the same way, of an array that goes to everybody; where comm::mpi goes from host to host
/// (comm/host_row.hpp), it is what those who speak for a host send. (Of mpi_order::native it is not known.)
struct traffic {
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t operations = 0;
  std::uint64_t sent_off_host = 0;  ///< to ranks on other hosts (comm/topology.hpp)

  friend constexpr bool operator==(traffic const&, traffic const&) = default;
  friend constexpr traffic operator-(traffic const& a, traffic const& b) {
    return {a.bytes_sent - b.bytes_sent, a.bytes_received - b.bytes_received, a.operations - b.operations,
            a.sent_off_host - b.sent_off_host};
  }
  friend constexpr traffic operator+(traffic const& a, traffic const& b) {
    return {a.bytes_sent + b.bytes_sent, a.bytes_received + b.bytes_received, a.operations + b.operations,
            a.sent_off_host + b.sent_off_host};
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
