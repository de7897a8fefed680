// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include <nccl.h>

// What goes wrong in the emulated NCCL, and what it counted.
namespace emulated {

/// Set before ranks begin. Ranks are those of the communicator that an operation is of; operations count from 1, of
/// each communicator, what is grouped as one.
struct nccl_faults {
  int polls = 1;          ///< questions for an error that find what was called still in progress, before it begins
  int never_rank = -1;    ///< the rank whose communicator never gets beyond "in progress"
  int hanging_rank = -1;  ///< the rank whose kernel of operation `hanging_at` never begins
  int hanging_at = 0;
  int error_rank = -1;  ///< the rank that NCCL reports `error` to, from operation `error_at` on
  int error_at = 0;
  ncclResult_t error = ncclRemoteError;
  bool revoke_hangs = false;  ///< revoking never comes to an end
  bool abort_hangs = false;   ///< ncclCommAbort waits until it is not so any more; changed under lock()
};
extern nccl_faults nccl;

struct nccl_counts {
  std::size_t made = 0, destroyed = 0, aborted = 0, revoked = 0, split = 0, shrunk = 0;
};
nccl_counts nccl_counted();
/// Bytes that a rank's operations moved to and from others as a ring moves them, of all communicators.
std::uint64_t nccl_bytes_sent(int rank);
void nccl_forget();

}  // namespace emulated
