// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/shard.hpp>

// A loop on several cores, for threads that exist as long as the call. They are POSIX threads, which the standard's are
// made of: <thread> and <mutex> are a fifth of what the rest of optim.hpp takes to compile.
namespace dovetail {

namespace detail {
using part_function = void (*)(void const* body, std::size_t n, int parts, int i);

/// One part of a loop, and its thread.
struct loop_part {
  part_function part;
  void const* body;
  std::size_t n;
  int parts, i = 0;
  std::exception_ptr failure{};
  pthread_t thread{};

  void run() noexcept {
    try {
      part(body, n, parts, i);
    } catch (...) {
      failure = std::current_exception();
    }
  }
};

/// part(body, 0) … part(body, parts - 1), one thread each. One function for all bodies: threads are slow to compile.
DOVETAIL_COLD inline void run_parts(int parts, part_function part, void const* body, std::size_t n) {
  std::vector<loop_part> all(static_cast<std::size_t>(parts), loop_part{part, body, n, parts});
  for (int i = 0; i < parts; ++i) all[static_cast<std::size_t>(i)].i = i;
  auto const part_at = [&](int i) -> loop_part& { return all[static_cast<std::size_t>(i)]; };
  auto const start = [&](int i) {
    return pthread_create(
        &part_at(i).thread, nullptr,
        [](void* of) -> void* {
          static_cast<loop_part*>(of)->run();
          return nullptr;
        },
        &part_at(i));
  };
  int started = 1;  // the first part is the caller's, and those that the system gives no thread for
  while (started < parts && start(started) == 0) ++started;
  part_at(0).run();
  for (int i = started; i < parts; ++i) part_at(i).run();
  for (int i = 1; i < started; ++i) pthread_join(part_at(i).thread, nullptr);
  for (auto const& p : all)
    if (p.failure) std::rethrow_exception(p.failure);
}
}  // namespace detail

/// Calls `body(range)` for contiguous parts of [0, n) on up to `threads` threads, the caller's included, and returns
/// when all are done. No part is smaller than `grain`: starting a thread costs tens of microseconds, so small work
/// stays on the caller's thread. The exception of the first part that threw is rethrown here.
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
