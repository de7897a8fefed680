// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

/// Sums per operation, of all ranks of the process that write to it. Thread-safe.
class timing_table {
 public:
  struct row {
    std::uint64_t calls = 0, bytes_sent = 0;
    double seconds = 0;
  };
  void add(operation op, std::uint64_t bytes_sent, double seconds) {
    std::lock_guard const lock(mutex_);
    auto& r = rows_[static_cast<std::size_t>(op)];
    ++r.calls;
    r.bytes_sent += bytes_sent;
    r.seconds += seconds;
  }
  row of(operation op) const {
    std::lock_guard const lock(mutex_);
    return rows_[static_cast<std::size_t>(op)];
  }
  /// A line for each operation that was called.
  std::string text() const {
    std::string lines;
    for (std::size_t i = 0; i < rows_.size(); ++i)
      if (auto const r = of(static_cast<operation>(i)); r.calls != 0)
        lines += message(name_of(static_cast<operation>(i)), ": ", r.calls, " calls, ", r.bytes_sent, " bytes sent, ",
                         r.seconds, " s\n");
    return lines;
  }

 private:
  mutable std::mutex mutex_;
  std::array<row, static_cast<std::size_t>(operation::shrink) + 1> rows_{};
};

/// Adds up the time of every operation, waiting included, to decorate a communicator with. An operation that fails is
/// left out. The table must outlive the communicator.
struct timing {
  timing_table* to = nullptr;

  template <class C, class F>
  void operator()(C& inner, call const& c, F const& operation) const {
    auto const before = inner.traffic().bytes_sent;
    auto const begin = std::chrono::steady_clock::now();
    operation();
    auto const end = std::chrono::steady_clock::now();
    to->add(c.op, inner.traffic().bytes_sent - before, std::chrono::duration<double>(end - begin).count());
  }
};

}  // namespace dovetail::comm
