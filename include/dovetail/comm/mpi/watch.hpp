// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/mpi/family.hpp>
#include <dovetail/comm/mpi/flow.hpp>
#include <dovetail/comm/mpi/notice.hpp>
#include <dovetail/comm/mpi/options.hpp>
#include <dovetail/comm/mpi/peers.hpp>
#include <dovetail/comm/mpi/wire.hpp>
#include <dovetail/comm/shm/signal.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// Waits for the other ranks of a communicator, and finds out why they do not come. A rank that waits for long tells
/// the others where it is, which is also a sign of life. So ranks in different operations find that out whatever these
/// move data by; and who gives up blames the rank that does not answer, not the one in between.
class mpi_watch {
 public:
  using clock = mpi_clock;

  mpi_watch(std::unique_ptr<mpi_wire> w, mpi_family& family, mpi_options const& o)
      : wire(std::move(w)),
        family_(family),
        deadline_(to_construct(o.deadline)),
        records_(static_cast<std::size_t>(wire->size())) {}
  /// The ranks have met: from now on the caller's deadline holds.
  void constructed(std::chrono::milliseconds deadline) {
    deadline_ = std::min<std::chrono::milliseconds>(deadline, std::chrono::hours(24 * 365));
  }

  bool broken() const { return failure_.kind != notice::none; }
  std::string where(call const& c) const {
    return message(c, ", operation ", sequence, " of ", records_.size(), " ranks");
  }
  void begin(call const& c) {
    // A message is between two ranks, and no operation of the others, who number what all call alike.
    if (c.op != operation::send && c.op != operation::recv) recent_[++sequence % recent_.size()] = c;
    if (broken()) rethrow(c);
    if (wire->pending()) wire->progress();
    if (++begun_ % 64 != 0) return;
    read_notices();  // who never waits must not let them pile up
    if (broken()) rethrow(c);
  }
  /// A failure of this rank's own making, told to the others.
  void give_up(std::string const& reason) {
    if (!broken()) fail({notice::lost, wire->rank(), reason}, true);
  }
  [[noreturn]] void lost(int r, call const& c, std::string const& reason) {
    if (!broken()) fail({notice::lost, r, reason}, true);
    rethrow(c);
  }
  [[noreturn]] void diverged(int r, call const& c, std::string const& reason) {
    fail({notice::diverged, r,
          reason + ": every rank must call the same operations with the same sizes, in the same order"},
         true);
    rethrow(c);
  }
  /// A message of another size: this rank or that one is odd. What the others have called decides.
  [[noreturn]] void misfit(int r, call const& c, std::string const& reason) {
    bool const collective = c.op != operation::send && c.op != operation::recv;
    auto const start = clock::now();
    being_here const here(*this, c, {r});
    if (collective) tell(c, r, true);
    while (collective && clock::now() - start < patience_with_others()) {
      read_notices();
      if (broken()) rethrow(c);
      wire->progress();
      if (disagreement::at(sequence, wire->rank(), sequence, recent_, records_).complete) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (collective) judge(c, true);
    diverged(r, c, reason);
  }

  /// Told to the others: this rank is in code of its own, or back from there. Guards may be nested.
  void go_away(bool now) {
    guards_ += now ? 1 : -1;
    if (broken() || guards_ != (now ? 1 : 0) || family_.off_limits() || mpi_is_over()) return;
    try {
      tell_all({now ? notice::away : notice::back, wire->rank()});
    } catch (comm_error const& e) {  // called by a destructor: the next operation throws
      give_up(e.what());
    }
  }
  /// Around what comm::mpi::run calls: who has returned from it does not come to an operation of the others in it.
  void enter_run() {
    if (depth_++ == 0) ++run_;
  }
  void return_from_run() {
    if (--depth_ > 0 || broken() || family_.off_limits()) return;
    notice n{notice::returned, wire->rank()};
    n.run = run_;
    tell_all(n);
  }
  /// After a failure: whether MPI will read nothing any more of what this rank was sending to r.
  bool released(int r) {
    try {
      for (notice n; wire->read(n);) record(n.rank).released |= n.kind == notice::released || n.kind == notice::left;
    } catch (comm_error const&) {
      return false;  // as far as one can know
    }
    return record(r).released || record(r).left || !peers.alive(r);
  }
  /// Told to the others after a failure, when no receive of this rank is under way.
  void tell_released() {
    exchanging = false;
    if (!std::exchange(told_released_, true)) tell_alive({notice::released, wire->rank()});
  }
  void read_notices() {
    for (notice n; !broken() && wire->read(n);) {
      if (n.kind == notice::lost || n.kind == notice::diverged) return fail(n, false);
      auto& r = record(n.rank);
      if (n.kind == notice::left) r.left = true;
      if (n.kind == notice::released) r.released = true;  // it knows of a failure that this rank will hear of
      if (n.kind == notice::returned) r.returned = n.run;
      if (n.kind == notice::received) wire->received(n.rank, n.bytes), ++moved;
      if (n.kind == notice::away || n.kind == notice::back) {
        r.away = n.kind == notice::away;
        came_back_ = clock::now();
      }
      if (n.kind != notice::waiting) continue;
      r.last = n;
      r.heard = clock::now();
      if (n.asks && waits_in_ && !r.left) wire->post(n.rank, word(*waits_in_, waits_for_, false));
    }
  }
  /// Tells r that its message has been received.
  void acknowledge(int r, std::size_t bytes) {
    if (r == wire->rank()) return wire->received(r, bytes);
    if (record(r).left) return;
    notice n{notice::received, wire->rank()};
    n.bytes = bytes;
    wire->post(r, n);
  }
  void said_farewell(int r) {
    wire->said_farewell(mpi_wire::messages, r);
    record(r).left = true;
  }

  /// How to rest while nothing happens. One that is woken when somebody comes may rest sooner.
  struct sleeper {
    static constexpr bool woken = false;
    void operator()(clock::duration d) const { std::this_thread::sleep_for(d); }
  };

  /// Polls until done(); missing() lists the ranks that are waited for, `tag` is what their messages carry, or -1.
  template <class Done, class Missing, class Rest>
  void wait_until(call const& c, int tag, Done done, Missing missing, Rest rest, char const* because = "") {
    for (int i = 0; i < (peers.crowded() ? 1 : 1000); ++i) {
      if (done()) return;
      pause_core();
    }
    using namespace std::chrono_literals;
    auto late = missing();
    being_here const here(*this, c, late);
    auto const start = clock::now();
    auto last = start, stirred = start, next_look = start + 1ms, next_tell = start + first_word();
    clock::time_point asked{};
    auto seen = moved;
    // A long array may move without a sign of it while MPI is called, and only then.
    auto const at_work = c.bytes() > 65536 ? 50ms : Rest::woken ? 1ms : 2ms;
    for (;;) {
      if (done()) return;
      auto const now = clock::now();
      if (moved != seen) seen = moved, last = stirred = now, suspect_ = -1, asked = {}, next_tell = now + first_word();
      if (wire->pending() && wire->progress() > 0) stirred = now;
      read_notices();  // also drives MPI, which moves nothing while nobody calls it
      if (broken()) {
        if (done()) return;  // what has failed meanwhile is for the next operation
        rethrow(c);
      }
      if (now >= next_look) {
        auto const before = late.size();
        late = missing();
        if (late.size() < before) ++moved;
        waits_for_ = late.empty() ? -1 : late[0];
        next_look = now + std::clamp<clock::duration>((now - last) / 8, 2ms, 10ms);
        family_.tend();
        look(c, tag, done, late);
        if (now >= next_tell && !late.empty()) {
          tell(c, late[0], false);
          next_tell = now + std::max<clock::duration>(deadline_ / 4, first_word());
        }
        if (c.op != operation::send && c.op != operation::recv) judge(c, now - last > patience_with_others());
        if (now - std::max(last, came_back_) > deadline_ && moved == seen && !late.empty() && !done()) {
          if (asked == clock::time_point{}) {
            asked = now;
            tell(c, late[0], true);
          } else if (now - asked > 250ms) {
            blame(c, late, asked, now - last > 8 * deadline_, because);  // throws, or all are alive
            asked = {};
          }
        }
      }
      // While something moves, or may be moving, this rank is there for it; no longer, for that takes a core.
      auto const idle = now - stirred;
      if (idle > (wire->transfers() ? 1000ms : at_work))
        rest(std::min<clock::duration>(idle / 32, 1ms));
      else if (Rest::woken && peers.crowded() && !wire->transfers())
        rest(std::clamp<clock::duration>(idle / 4, 100us, 1ms));
      else if (peers.crowded() || idle > 10ms)
        std::this_thread::yield();
    }
  }

  std::unique_ptr<mpi_wire> wire;
  mpi_peers peers;
  std::uint64_t sequence = 0;
  bool exchanging = false;  ///< messages to or from the caller's arrays are under way
  std::uint64_t moved = 0;  ///< grows with everything that comes or goes: the deadline begins anew

 private:
  /// While this rank waits it answers those who ask where it is.
  struct being_here {
    being_here(mpi_watch& w, call const& c, std::vector<int> const& late) : watch(w) {
      w.waits_in_ = &c;
      w.waits_for_ = late.empty() ? -1 : late[0];
      w.suspect_ = -1;
    }
    being_here(being_here const&) = delete;
    being_here& operator=(being_here const&) = delete;
    ~being_here() { watch.waits_in_ = nullptr; }
    mpi_watch& watch;
  };

  peer_record& record(int r) { return records_[static_cast<std::size_t>(r)]; }
  /// How soon a rank that waits says where it is, and how soon it trusts that all who could have done so.
  clock::duration first_word() const { return std::min<clock::duration>(std::chrono::milliseconds(40), deadline_ / 4); }
  clock::duration patience_with_others() const {
    return std::min<clock::duration>(std::chrono::milliseconds(200), deadline_ / 2);
  }

  /// Looks for a rank that is known not to come.
  template <class Done>
  void look(call const& c, int tag, Done& done, std::vector<int> const& late) {
    for (int const r : late) {
      bool const left = record(r).left, returned = depth_ > 0 && record(r).returned == run_;
      bool const gone = left || returned, dead = !peers.alive(r);
      int other = 0;
      MPI_Status status{};
      if (tag >= 0 && r != wire->rank())
        mpi_check(MPI_Iprobe(r, MPI_ANY_TAG, wire->on(mpi_wire::collective), &other, &status), "MPI_Iprobe", r);
      // Only the operation counts: the next phase may be under way. What has come meanwhile is no offence.
      int const came = status.MPI_TAG & ~mpi_flow::announcement;
      other = other && status.MPI_TAG != mpi_wire::notice_tag && ((came - 1) | 1) != ((tag - 1) | 1);
      if (!(gone || dead || other)) {
        if (suspect_ == r) suspect_ = -1;
        continue;
      }
      // MPI keeps the order of what it matches, not of arrival: what we wait for may still be on its way behind the
      // short message, or the end, that we have seen. Strike only when it does not come.
      if (suspect_ != r) suspect_ = r, suspect_since_ = clock::now();
      auto const grace = gone || dead ? clock::duration(std::chrono::milliseconds(20)) : patience_with_others();
      if (clock::now() - suspect_since_ < std::min<clock::duration>(grace, deadline_ / 2)) return;
      if (done()) return;
      read_notices();  // a rank that threw says why before it ends
      if (broken()) rethrow(c);
      if (dead) lost(r, c, message("rank ", r, " is dead: its process has ended"));
      if (gone)
        lost(r, c,
             message("rank ", r, " has left: it ",
                     returned ? "returned from run" : "returned or destroyed its communicator"));
      judge(c, true);
      diverged(r, c,
               message("rank ", r, " called ", name_of(static_cast<operation>(((came - 1) >> 6) & 15)),
                       " (other type, reduction or number of operations, if not another name)"));
    }
  }

  /// Compares what the ranks have called, this operation and the ones before it.
  void judge(call const& c, bool now) {
    for (std::uint64_t n = sequence > 3 ? sequence - 3 : 1; n <= sequence; ++n) {
      auto const d = disagreement::at(n, wire->rank(), sequence, recent_, records_);
      if (!d.differ || !(d.complete || now)) continue;
      diverged(d.odd, c,
               message("rank ", d.odd, " called ", d.called, n == sequence ? "" : message(" as operation ", n)));
    }
  }

  /// The deadline is over. Follows who waits for whom to the ranks that do not answer, and throws; returns when nobody
  /// is to blame, as all are alive in this operation, or away.
  void blame(call const& c, std::vector<int> const& late, clock::time_point asked, bool long_enough,
             char const* because) {
    if (late[0] == wire->rank())
      lost(late[0], c,
           message("rank ", late[0], " has sent itself no such message within ", deadline_.count(),
                   " ms, the deadline, and cannot while it waits"));
    std::vector<int> silent;
    bool locked = false;
    for (int const first : late) {
      int r = first;
      for (std::size_t steps = 0;; ++steps) {
        auto const& p = record(r);
        if (p.away) {
          came_back_ = clock::now();
          return;
        }
        if (r == wire->rank() || steps > records_.size()) {
          locked = true;
          break;
        }
        if (p.last.kind != notice::waiting || p.heard < asked) {
          if (std::find(silent.begin(), silent.end(), r) == silent.end()) silent.push_back(r);
          break;
        }
        // Who waits in another call waits for us in vain; in this one MPI may only be slow.
        if (p.last.sequence != sequence || !(p.last.now == c)) locked = locked || p.last.waits_for == wire->rank();
        r = p.last.waits_for;
        if (r < 0) break;
      }
    }
    if (!silent.empty()) {
      std::string others;
      for (std::size_t i = 1; i < silent.size(); ++i) others += message(" and rank ", silent[i]);
      lost(silent[0], c,
           message("rank ", silent[0], others, " did not answer for ", deadline_.count(),
                   " ms, the deadline: blocked or slow (mpi_options::deadline can be raised)", *because ? ": " : "",
                   because));
    }
    auto const& p = record(late[0]);
    bool const elsewhere = p.last.sequence != sequence || !(p.last.now == c);
    if (!(locked && elsewhere) && !long_enough) return;
    lost(elsewhere ? late[0] : -1, c,
         message("no progress for ", deadline_.count(), " ms, the deadline, though all ranks are alive: rank ", late[0],
                 " waits in ", p.last.now, *because ? ": " : "", because));
  }

  notice word(call const& c, int waits_for, bool asks) const {
    notice n{notice::waiting, wire->rank()};
    n.waits_for = waits_for;
    n.asks = asks;
    n.sequence = sequence;
    n.now = c;
    n.recent = recent_;
    return n;
  }
  void tell(call const& c, int waits_for, bool asks) { tell_all(word(c, waits_for, asks)); }
  void tell_all(notice const& n) {
    for (int r = 0; r < wire->size(); ++r)
      if (r != wire->rank() && !record(r).left) wire->post(r, n);
  }

  /// The first failure stands. Telling it is at best effort: a peer that is gone must not stop us.
  void fail(notice const& n, bool tell) {
    failure_ = n;
    if (family_.off_limits()) return;
    if (tell) tell_alive(n);
    if (!exchanging) tell_released();
  }
  /// Also to those who have left: they wait for everybody's farewell, and there will be none.
  void tell_alive(notice const& n) {
    auto const give_up = clock::now() + std::chrono::milliseconds(20);
    for (int r = 0; r < wire->size(); ++r) try {
        if (r != wire->rank() && peers.alive(r)) wire->post(r, n);
      } catch (comm_error const&) {
        continue;
      }
    try {
      while (wire->pending_notices() && clock::now() < give_up) wire->progress();
    } catch (comm_error const&) {
      return;
    }
  }
  [[noreturn]] void rethrow(call const& c) const {
    auto const what = message(where(c), ": ", failure_.text);
    if (failure_.kind == notice::diverged) throw rank_diverged(what, failure_.rank);
    throw rank_lost(what, failure_.rank);
  }

  mpi_family& family_;
  std::chrono::milliseconds deadline_;
  bool told_released_ = false;
  std::vector<peer_record> records_;
  recent_calls recent_{};
  notice failure_;
  std::uint64_t begun_ = 0;
  int guards_ = 0;  // of this rank's being away
  int depth_ = 0;   // of run()
  std::uint64_t run_ = 0;
  int suspect_ = -1;
  clock::time_point suspect_since_, came_back_{};
  call const* waits_in_ = nullptr;
  int waits_for_ = -1;
};

}  // namespace dovetail::comm::detail
