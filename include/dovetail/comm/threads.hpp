// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dovetail/comm/endpoint.hpp>
#include <dovetail/comm/threads/engine.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/cores.hpp>

namespace dovetail::comm {

/// A world whose ranks are threads of this process; they reduce and copy directly in each other's arrays. A handle:
/// copies mean the same world. Throws argument_error for fewer than one rank.
///
/// A rank that throws, returns or destroys its communicator while others wait for it, or that does not come within the
/// deadline, makes them throw rank_lost; a rank that asks for something else makes all throw rank_diverged. The group
/// is broken then; the next run() starts with a new one. The collectives of one communicator must not be called from
/// two threads at once.
class threads {
 public:
  /// One rank's end. Movable, not copyable; its end of life is this rank's farewell to the others.
  using communicator = endpoint<detail::thread_engine>;

  DOVETAIL_COLD explicit threads(int ranks, threads_options options = {}) : state_(std::make_shared<state>()) {
    require(ranks >= 1, ranks, " ranks: a world of threads has at least one");
    require(options.deadline.count() > 0, "deadline ", options.deadline.count(), " ms: it must be positive");
    require(options.mailbox.messages > 0 && options.mailbox.bytes > 0, "mailbox of ", options.mailbox.messages,
            " messages and ", options.mailbox.bytes, " bytes: there must be room for one message");
    if (ranks > usable_cores()) options.spin = std::chrono::microseconds(0);  // and so for the parts of a split
    state_->ranks = ranks;
    state_->options = options;
    state_->handed_out = std::make_unique<std::atomic<std::uint64_t>[]>(static_cast<std::size_t>(ranks));
  }

  int size() const { return state_->ranks; }

  /// Calls f(communicator&) once per rank, each call on a thread of its own, and returns when all have returned. When
  /// ranks throw, rethrows the root cause: what the first rank threw that did not merely miss another one.
  template <class F>
  void run(F&& f) const {
    auto const one_rank = [&](communicator& c) { f(c); };
    run_ranks([](void const* body, communicator& c) { (*static_cast<decltype(one_rank)*>(body))(c); }, &one_rank);
  }

  /// Rank r's communicator, for callers who have their own threads. The n-th call for a rank joins the n-th group, so
  /// once each rank has been handed out again, a world that broke works again.
  communicator rank(int r) const {
    require(r >= 0 && r < size(), "rank ", r, ": there are ranks 0 to ", size() - 1);
    auto const n = state_->handed_out[static_cast<std::size_t>(r)]++;
    return communicator(detail::thread_engine(state_->groups.join(n, 0, size(), state_->options), r));
  }

 private:
  /// run() of `call(body, communicator)`: one function for all bodies, because threads are slow to compile.
  DOVETAIL_COLD void run_ranks(void (*call)(void const* body, communicator&), void const* body) const {
    auto const group = std::make_shared<detail::thread_group>(size(), state_->options);
    failures found;
    auto const lost = [&](int r, char const* how, char const* what) {
      std::string why;
      try {
        why = message("rank ", r, how, what);
      } catch (std::bad_alloc const&) {  // what happened is known to run() all the same
      }
      group->fail(r, false, std::move(why));
    };
    auto const one_rank = [&](int r) {
      std::optional<communicator> c;  // its end is after the failure is known to the others
      try {
        c.emplace(detail::thread_engine(group, r));
        call(body, *c);
      } catch (comm_error const& e) {
        found.add(std::current_exception(), true);
        // A rank that missed another one in a part of the world must not be named in its stead: that one is on its way.
        for (int i = 0; i < 100 && !group->broken; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        lost(r, " threw: ", e.what());
      } catch (std::exception const& e) {
        found.add(std::current_exception(), false);
        lost(r, " threw: ", e.what());
      } catch (...) {
        found.add(std::current_exception(), false);
        lost(r, " threw something that is no std::exception", "");
      }
    };
    std::vector<std::jthread> started;  // joined at the end, whatever happens
    started.reserve(static_cast<std::size_t>(size()));
    try {
      for (int r = 0; r < size(); ++r) started.emplace_back(one_rank, r);
    } catch (...) {  // no more threads to be had: those that run must not wait for the rest
      auto const missing = static_cast<int>(started.size());
      group->fail(missing, false, message("rank ", missing, " could not be started"));
      throw;
    }
    started.clear();
    if (auto const e = found.root_cause()) std::rethrow_exception(e);
  }

  struct state {
    int ranks = 0;
    threads_options options;
    std::unique_ptr<std::atomic<std::uint64_t>[]> handed_out;
    detail::forming_groups groups;
  };

  class failures {
   public:
    void add(std::exception_ptr e, bool about_others) {
      std::lock_guard const lock(mutex_);
      auto& first = about_others ? first_secondary_ : first_;
      if (!first) first = std::move(e);
    }
    std::exception_ptr root_cause() const { return first_ ? first_ : first_secondary_; }

   private:
    std::mutex mutex_;
    std::exception_ptr first_, first_secondary_;
  };

  std::shared_ptr<state> state_;
};

}  // namespace dovetail::comm
