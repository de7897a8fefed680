// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/trace.hpp>

namespace dovetail::comm {

/// An operation that was recorded.
struct recorded_call {
  int rank = 0;
  comm::call call;
  traffic moved;
  double seconds = 0;
  bool failed = false;
};

/// What recording and its copies write to, from all ranks of the process. Thread-safe.
class call_log {
 public:
  void add(recorded_call c) {
    std::lock_guard const lock(mutex_);
    calls_.push_back(std::move(c));
  }
  /// In the order in which they ended.
  std::vector<recorded_call> calls() const {
    std::lock_guard const lock(mutex_);
    return calls_;
  }
  /// A line for each of a rank's operations; -1: of all ranks.
  std::string text(int rank = -1) const {
    std::string lines;
    for (auto const& c : calls())
      if (rank < 0 || c.rank == rank)
        lines +=
            message("rank ", c.rank, ": ", c.call, ": ", c.moved.bytes_sent, " bytes sent, ", c.moved.bytes_received,
                    " received, ", c.seconds * 1e6, " us", c.failed ? ", failed" : "", '\n');
    return lines;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<recorded_call> calls_;
};

/// Lists every operation with its size, step and bucket, traffic and duration, to decorate a communicator with; also as
/// spans of a trace, if there is one. Both must outlive the communicator.
struct recording {
  call_log* to = nullptr;
  dovetail::trace* trace = nullptr;

  template <class C, class F>
  void operator()(C& inner, call const& c, F const& operation) const {
    using clock = dovetail::trace::clock;
    auto const before = inner.traffic();
    auto const begin = clock::now();
    auto const write = [&](bool failed) {
      auto const end = clock::now();
      auto const moved = inner.traffic() - before;
      if (to) to->add({inner.rank(), c, moved, std::chrono::duration<double>(end - begin).count(), failed});
      if (trace) trace->record(name_of(c.op), "comm", inner.rank(), begin, end, moved.bytes_sent);
    };
    try {
      operation();
    } catch (...) {
      write(true);
      throw;
    }
    write(false);
  }
};

}  // namespace dovetail::comm
