// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <dovetail/core/shard.hpp>

// A loop on several cores, for threads that exist as long as the call.
namespace dovetail {

namespace detail {
/// part(body, 0) … part(body, parts - 1), one thread each. One function for all bodies: threads are slow to compile.
inline void run_parts(int parts, void (*part)(void const* body, std::size_t n, int parts, int i), void const* body,
                      std::size_t n) {
  std::exception_ptr failure;
  std::mutex guard;
  auto const guarded = [&](int i) {
    try {
      part(body, n, parts, i);
    } catch (...) {
      std::lock_guard const lock(guard);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;  // joined at the end of this block, whatever happens in it
    others.reserve(static_cast<std::size_t>(parts - 1));
    for (int i = 1; i < parts; ++i) others.emplace_back(guarded, i);
    guarded(0);
  }
  if (failure) std::rethrow_exception(failure);
}
}  // namespace detail

/// Calls `body(range)` for contiguous parts of [0, n) on up to `threads` threads, the caller's included, and returns
/// when all are done. No part is smaller than `grain`: starting a thread costs tens of microseconds, so small work
/// stays on the caller's thread. The first exception of a part is rethrown here.
template <class Body>
void parallel_for(int threads, std::size_t n, std::size_t grain, Body const& body) {
  std::size_t const most = std::max<std::size_t>(1, n / std::max<std::size_t>(1, grain));
  int const parts = static_cast<int>(std::min<std::size_t>(most, static_cast<std::size_t>(std::max(1, threads))));
  if (parts == 1) {
    body(range{0, n});
    return;
  }
  detail::run_parts(
      parts, [](void const* b, std::size_t all, int of, int i) { (*static_cast<Body const*>(b))(shard(all, of, i)); },
      &body, n);
}

}  // namespace dovetail
