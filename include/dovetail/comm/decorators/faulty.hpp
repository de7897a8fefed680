// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

enum class fault : std::uint8_t {
  dies,     ///< throws comm::died in place of the operation
  stalls,   ///< sleeps first
  diverges  ///< asks for an all_reduce of one element more
};

/// What faulty throws: no comm_error, so it is taken for an error of the program's.
struct died : error {
  using error::error;
};

/// A rank that fails, to decorate a communicator with: before its at_operation-th collective, counted from 0, as its
/// traffic counts operations. For tests of what others make of it.
struct faulty {
  int rank = 0;
  std::uint64_t at_operation = 0;
  fault what = fault::dies;
  std::chrono::milliseconds stall{};  ///< of fault::stalls: longer than the deadline

  template <class C, class F>
  void operator()(C& inner, call const& c, F const& operation) const {
    if (inner.rank() == rank && inner.traffic().operations == at_operation) {
      if (what == fault::dies) throw died(message("rank ", rank, " dies before ", c));
      if (what == fault::stalls) std::this_thread::sleep_for(stall);
      if (what == fault::diverges) {
        std::vector<float> other(c.count + 1);
        inner.all_reduce(std::span(other), reduction::sum);
      }
    }
    operation();
  }
};

}  // namespace dovetail::comm
