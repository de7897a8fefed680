// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <string>

#include <dovetail/comm/operation.hpp>

namespace dovetail::comm {

/// How ranks over NCCL wait for each other.
struct nccl_options {
  /// An operation whose turn in its stream has come, and that is not done after so long, fails.
  std::chrono::milliseconds deadline = default_deadline;
  /// Meet on the control communicator before every collective and compare what the ranks call: a rank that does not
  /// come, or calls something else, is named before anything is queued. It costs one small all-gather of the host's and
  /// keeps host threads in step; without it the ranks meet only when an operation failed, and `away` promises nothing.
  bool check = true;
};

/// Where processes of one host find each other without MPI: a file that none of them has made before. Its name is the
/// same for all; the last one to leave removes it.
struct nccl_rendezvous {
  std::string path;
  int rank = 0;
  int size = 1;
};

}  // namespace dovetail::comm
