// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include <dovetail/comm/operation.hpp>

namespace dovetail::comm {

/// Who adds: ordered is this library's own algorithm, in rank order, the same bits as comm::threads; native is
/// MPI_Allreduce, in whatever order the MPI likes, without deadline, for the types that MPI knows.
enum class mpi_order : std::uint8_t { ordered, native };

/// How ranks over MPI wait for each other and move data.
struct mpi_options {
  /// An operation that makes no progress for so long fails: the rank that does not answer is lost. Making and splitting
  /// a communicator has at least two seconds.
  std::chrono::milliseconds deadline = default_deadline;
  mpi_order order = mpi_order::ordered;
  /// Compare what the ranks ask for before every operation, at the cost of a small message to every rank. Without it
  /// divergence is still found, from the envelopes of messages, but not for certain nor always with the right rank; a
  /// broadcast from two roots is found by this only. In shared memory it is compared anyway.
  bool check = false;
  /// Collectives go through shared memory where ranks are on one host, and from host to host between several.
  bool shared_memory = true;
  /// Longer messages are sent in pieces, so that their progress is seen. Must be equal on all ranks.
  std::size_t largest_message = std::size_t{1} << 22;
  /// Messages of this rank that others have not received yet.
  mailbox_limits mailbox{};
  /// Ranks of each host that speak to other hosts, each for a part of an array. 0: as many as the smallest host has, at
  /// most four, and one where ranks share cores. Must be equal on all ranks.
  int lanes = 0;
  /// What this rank's host is called, in at most 63 characters: ranks whose hosts are called alike, and that see each
  /// other's processes, are taken to be on one. Empty: as the system calls it.
  std::string host{};
};

}  // namespace dovetail::comm
