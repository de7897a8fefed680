// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/fork_mark.hpp>
#include <dovetail/comm/shm/signal.hpp>
#include <dovetail/comm/threads/mailbox.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

/// How the ranks of comm::threads wait for each other.
struct threads_options {
  /// A rank that does not come for so long is lost.
  std::chrono::milliseconds deadline = default_deadline;
  /// How long to wait on the core before sleeping; only while there is a core for every rank.
  std::chrono::microseconds spin{50};
  /// Messages to one rank that it has not received yet.
  mailbox_limits mailbox{};
};

namespace detail {

/// What a rank lays open to its peers for the duration of one operation.
struct posting {
  comm::call call;
  std::byte const* in = nullptr;
  std::byte* out = nullptr;
  std::size_t bytes = 0;  // where the ranks' sizes may differ
  int key = 0;
};

/// Up to here one meeting less is worth more than every rank's copy: with two ranks from 256 B on the direct way wins,
/// but it always takes two meetings, which cost most when the cores are contended.
inline constexpr std::size_t small_bytes = 1024;

struct thread_group;

/// Groups that not all members have joined yet.
class forming_groups {
 public:
  /// The group of those who come with the same `when` and `color`: the first of them makes it.
  std::shared_ptr<thread_group> join(std::uint64_t when, int color, int members, threads_options const& options);

 private:
  struct forming {
    std::uint64_t when;
    int color, to_come;
    std::shared_ptr<thread_group> group;
  };
  std::mutex mutex_;
  std::list<forming> groups_;
};

/// The memory that the ranks of one communicator share. Ranks meet at *phases*: each rank counts its own in `arrived`.
/// What was posted before phase k may be read after it, and is overwritten before phase k + 2 at the earliest, when
/// every rank has passed k + 1: hence two postings and two small buffers, used in turn.
struct thread_group {
  static constexpr std::uint32_t poisoned = 1, left = 2, one_phase = 4;  // bits of `arrived`

  using clock = std::chrono::steady_clock;

  struct alignas(128) seat {
    signal arrived;  // phases × one_phase, and the two bits
    alignas(128) posting posts[2];
    alignas(128) std::atomic<int> reading{0};  // this rank is at work on its peers' arrays
    std::atomic<int> waits_for{-1};            // the rank that this one is waiting for
    std::atomic<int> gave_up_on{-1};           // the lost rank that its last wait for a message ended with
    std::atomic<int> away{0};                  // guards that are alive
    std::atomic<clock::rep> came_back{0};      // when the last of them went
    std::atomic<bool> lost{false};             // known to come no more; why: lost_because
    signal mail_signal;
    mailbox mail;
    alignas(128) std::byte small[2][small_bytes];
  };

  thread_group(int n, threads_options o)
      : ranks(n),
        options(o),
        seats(std::make_unique<seat[]>(static_cast<std::size_t>(n))),
        lost_because(static_cast<std::size_t>(n)) {}

  seat& at(int r) { return seats[static_cast<std::size_t>(r)]; }

  /// A rank is lost, or has called something else (then the group is over): collectives are broken, and the first
  /// reason stands. Everybody who waits is woken. Messages between ranks that are not lost go on unless the group is
  /// over.
  void fail(int rank, bool diverged, std::string reason) { fail(rank, diverged, diverged, std::move(reason)); }
  void abort(int rank, std::string reason) { fail(rank, false, true, std::move(reason)); }
  bool is_lost(int r) { return at(r).lost.load(); }
  /// Lost, or has said farewell: nothing will come from there any more.
  bool is_gone(int r) { return is_lost(r) || (at(r).arrived.load() & left) != 0; }
  std::string why_lost(int r) {
    std::lock_guard const lock(mutex);
    auto const& because = lost_because[static_cast<std::size_t>(r)];
    return because.empty() ? message("rank ", r, " has left") : because;
  }

  /// The group of those who are left, and this rank's place in it: those who come here, and wait for each other until
  /// everybody has come, or is gone, or the deadline is over. Throws rank_lost for a rank that the others go on
  /// without.
  std::pair<std::shared_ptr<thread_group>, int> shrink(int rank, std::string const& where);

  /// Throws what the group has failed of, as seen by a rank in the operation `where`.
  [[noreturn]] void rethrow(std::string const& where) {
    std::lock_guard const lock(mutex);
    auto const what = message(where, ": ", failed_because);
    if (failed_diverged) throw rank_diverged(what, failed_rank);
    throw rank_lost(what, failed_rank);
  }
  /// Of the ranks that `rank` waits for, and they for others, the last: the one to blame. `rank` where they wait in a
  /// circle, or for `me`.
  int behind(int rank, int me) {
    int last = rank;
    for (int steps = 0; steps < ranks; ++steps) {
      int const next = at(last).waits_for.load();
      if (next < 0) return last;
      if (next == me) return rank;
      last = next;
    }
    return rank;
  }
  /// Until when to wait for a rank that is waited for since then: a rank in code of its own is given its time.
  clock::time_point give_up(int rank, clock::time_point since) {
    auto const patience = std::min<std::chrono::milliseconds>(options.deadline, std::chrono::hours(24 * 365));
    auto& s = at(rank);
    if (s.away.load() > 0) return clock::now() + patience;
    return std::max(since, clock::time_point(clock::duration(s.came_back.load()))) + patience;
  }
  void go_away(int rank, bool now) {
    auto& s = at(rank);
    if (!now) s.came_back = clock::now().time_since_epoch().count();
    s.away += now ? 1 : -1;
  }
  /// A rank will not come again. No failure by itself: only whoever waits for it fails.
  void leave(int rank) {
    if (mark.forked()) return;
    at(rank).arrived.set_bits(left);
    for (int r = 0; r < ranks; ++r) at(r).mail_signal.add(one_phase);
  }

  fork_mark const mark;
  int const ranks;
  threads_options const options;
  std::unique_ptr<seat[]> const seats;
  std::atomic<bool> broken{false};  // for collectives
  std::atomic<bool> over{false};    // for messages, too
  forming_groups parts;             // of splits

 private:
  DOVETAIL_COLD void fail(int rank, bool diverged, bool is_over, std::string reason) {
    {
      std::lock_guard const lock(mutex);
      if (rank >= 0 && !diverged && !at(rank).lost) {
        lost_because[static_cast<std::size_t>(rank)] = reason;
        at(rank).lost = true;
      }
      if (!broken.load(std::memory_order_relaxed) || (is_over && !over)) {
        failed_rank = rank;
        failed_diverged = diverged;
        failed_because = std::move(reason);
        broken.store(true, std::memory_order_seq_cst);
      }
      if (is_over) over = true;
    }
    for (int r = 0; r < ranks; ++r) {
      at(r).arrived.set_bits(poisoned);
      at(r).mail_signal.add(one_phase);
    }
  }

  std::mutex mutex;
  std::vector<std::string> lost_because;
  struct {
    std::vector<char> here;
    std::vector<int> members;  // once it is known
    std::shared_ptr<thread_group> made;
    std::size_t to_come = 0;
  } shrinking;
  int failed_rank = -1;
  bool failed_diverged = false;
  std::string failed_because;
};

DOVETAIL_COLD inline std::pair<std::shared_ptr<thread_group>, int> thread_group::shrink(int rank,
                                                                                        std::string const& where) {
  auto const since = clock::now();
  auto const lost_itself = [&] {
    throw rank_lost(message(where, ": the others go on without this rank: ", why_lost(rank)), rank);
  };
  auto const self = static_cast<std::size_t>(rank);
  for (bool came = false;;) {
    int late = -1;
    {
      std::unique_lock lock(mutex);
      if (over) {
        lock.unlock();
        rethrow(where);
      }
      if (!came) {
        bool const known = shrinking.made != nullptr;
        bool const member = known && shrinking.here[self] != 0;
        if (at(rank).lost || (known && !member)) {
          lock.unlock();
          lost_itself();
        }
        if (member) {  // asked for again, before the others have what was made for the first time
          lock.unlock();
          std::this_thread::sleep_for(std::chrono::microseconds(200));
          continue;
        }
      }
      came = true;
      shrinking.here.resize(static_cast<std::size_t>(ranks));
      shrinking.here[self] = 1;
      if (!shrinking.made) {
        for (int r = 0; r < ranks && late < 0; ++r)
          if (!shrinking.here[static_cast<std::size_t>(r)] && !is_gone(r)) late = r;
        if (late < 0) {
          std::vector<int> members;
          for (int r = 0; r < ranks; ++r)
            if (shrinking.here[static_cast<std::size_t>(r)]) members.push_back(r);
          shrinking.made = std::make_shared<thread_group>(static_cast<int>(members.size()), options);
          shrinking.to_come = members.size();
          shrinking.members = std::move(members);
        }
      }
      if (shrinking.made) {
        auto const made = shrinking.made;
        auto const& members = shrinking.members;
        auto const place = std::find(members.begin(), members.end(), rank) - members.begin();
        if (--shrinking.to_come == 0) shrinking = {};  // it may be asked for again
        return {made, static_cast<int>(place)};
      }
    }
    if (clock::now() >= give_up(late, since))
      fail(late, false,
           message("rank ", late, " did not come to shrink for ", options.deadline.count(), " ms, the deadline"));
    else
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

inline std::shared_ptr<thread_group> forming_groups::join(std::uint64_t when, int color, int members,
                                                          threads_options const& options) {
  std::lock_guard const lock(mutex_);
  auto g = std::find_if(groups_.begin(), groups_.end(),
                        [&](forming const& f) { return f.when == when && f.color == color; });
  if (g == groups_.end())
    g = groups_.insert(g, {when, color, members, std::make_shared<thread_group>(members, options)});
  auto group = g->group;
  if (--g->to_come == 0) groups_.erase(g);  // those who joined keep it alive
  return group;
}

}  // namespace detail
}  // namespace dovetail::comm
