// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstdint>
#include <thread>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/philox.hpp>

namespace dovetail::comm {

/// A slower network, to decorate a communicator with: behind each operation a rank sleeps for latency + bytes sent /
/// bandwidth, times a factor in [1, 1 + jitter) that is a function of seed, rank and the number of the operation. Below
/// an algorithm (with_algorithm of a decorated communicator) it is each message that is slowed.
struct throttled {
  std::chrono::microseconds latency{};
  double bytes_per_second = 0;  ///< 0: no limit
  double jitter = 0;
  std::uint64_t seed = 0;

  template <class C, class F>
  void operator()(C& inner, call const&, F const& operation) const {
    auto const before = inner.traffic();
    operation();
    sleep(inner.traffic() - before, inner.rank(), before.operations);
  }

 private:
  void sleep(traffic const& moved, int rank, std::uint64_t number) const {
    double seconds = std::chrono::duration<double>(latency).count();
    if (bytes_per_second > 0) seconds += static_cast<double>(moved.bytes_sent) / bytes_per_second;
    random_stream const random{seed, 0, number, static_cast<std::uint32_t>(rank)};
    seconds *= 1 + jitter * static_cast<double>(random.uniform(0));
    if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
};

}  // namespace dovetail::comm
