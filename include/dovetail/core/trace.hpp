// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

namespace dovetail {

/// Something that took time: on which rank and thread, from when, how long. Names are copied, cut to the room here.
struct trace_event {
  std::array<char, 40> name{};
  std::array<char, 16> category{};
  int rank = 0;
  int thread = 0;                              ///< numbered from 0 as threads first appear
  std::int64_t begin_ns = 0, duration_ns = 0;  ///< since the trace was made
  std::uint64_t bytes = 0;                     ///< that were moved; 0: not said

  std::string_view name_view() const { return {name.data()}; }
  std::string_view category_view() const { return {category.data()}; }
};

/// Collects events from all threads in memory of a fixed size. When it is full, later events are dropped and counted:
/// a trace never stops a run. io/trace.hpp writes it as a file for Perfetto or chrome://tracing.
class trace {
 public:
  using clock = std::chrono::steady_clock;

  /// Room for `capacity` events of about 100 bytes; untouched room costs no memory.
  explicit trace(std::size_t capacity = std::size_t{1} << 18) : capacity_(capacity) { events_.reserve(capacity); }
  trace(trace const&) = delete;
  trace& operator=(trace const&) = delete;

  /// Thread-safe.
  void record(std::string_view name, std::string_view category, int rank, clock::time_point begin,
              clock::time_point end, std::uint64_t bytes = 0) noexcept {
    trace_event e;
    copy(name, e.name);
    copy(category, e.category);
    e.rank = rank;
    e.begin_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(begin - origin_).count();
    e.duration_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
    e.bytes = bytes;
    record(e);
  }
  /// As above; fills in the thread.
  void record(trace_event e) noexcept {
    std::lock_guard const lock(mutex_);
    if (events_.size() >= capacity_) {
      ++dropped_;
      return;
    }
    auto const self = std::hash<std::thread::id>{}(std::this_thread::get_id());
    auto const seen = std::find(threads_.begin(), threads_.end(), self);
    e.thread = static_cast<int>(seen - threads_.begin());
    try {
      if (seen == threads_.end()) threads_.push_back(self);
      events_.push_back(e);
    } catch (...) {
      ++dropped_;
    }
  }

  /// A copy of what was recorded, in the order in which events ended.
  std::vector<trace_event> events() const {
    std::lock_guard const lock(mutex_);
    return events_;
  }
  std::size_t dropped() const {
    std::lock_guard const lock(mutex_);
    return dropped_;
  }
  clock::time_point origin() const { return origin_; }
  /// The same moment on the wall clock: traces of several processes are laid over each other by it.
  std::chrono::system_clock::time_point wall_origin() const { return wall_origin_; }

  template <std::size_t N>
  static void copy(std::string_view from, std::array<char, N>& to) {
    to[from.copy(to.data(), N - 1)] = '\0';
  }

 private:
  clock::time_point const origin_ = clock::now();
  std::chrono::system_clock::time_point const wall_origin_ = std::chrono::system_clock::now();
  std::size_t const capacity_;
  mutable std::mutex mutex_;
  std::vector<trace_event> events_;
  std::vector<std::size_t> threads_;  // hashes of their ids
  std::size_t dropped_ = 0;
};

/// Records the time from its construction to end() or its destruction: `trace_span span{trace, "forward", "nn",
/// rank};`. With a null trace it does nothing and does not even read the clock.
class trace_span {
 public:
  trace_span(trace* to, std::string_view name, std::string_view category, int rank, std::uint64_t bytes = 0)
      : trace_(to) {
    if (!trace_) [[likely]]
      return;
    auto& e = event_.emplace();
    trace::copy(name, e.name);
    trace::copy(category, e.category);
    e.rank = rank;
    e.bytes = bytes;
    e.begin_ns = now();
  }
  trace_span(trace_span const&) = delete;
  trace_span& operator=(trace_span const&) = delete;
  ~trace_span() { end(); }

  /// Ends the span early; the destructor then does nothing.
  void end() noexcept {
    if (!trace_) [[likely]]
      return;
    event_->duration_ns = now() - event_->begin_ns;
    trace_->record(*event_);
    trace_ = nullptr;
  }

 private:
  std::int64_t now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(trace::clock::now() - trace_->origin()).count();
  }
  trace* trace_;
  std::optional<trace_event> event_;
};

}  // namespace dovetail
