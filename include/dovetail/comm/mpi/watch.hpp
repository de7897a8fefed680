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
    if (!is_message(c)) recent_[++sequence % recent_.size()] = c;
    go_on(c);
    if (wire->pending()) wire->progress();
    if (++begun_ % 64 != 0) return;
    read_notices();  // who never waits must not let them pile up
    go_on(c);
  }
  /// Between two ranks, which others that are lost do not concern.
  static bool is_message(call const& c) {
    return c.op == operation::send || c.op == operation::recv || c.op == operation::wait_message ||
           c.op == operation::shrink;
  }
  /// Throws unless an operation is still possible.
  void go_on(call const& c) const {
    if (is_message(c) ? over_ : broken()) rethrow(c);
    if (!is_message(c)) return;
    if (self_lost_) throw rank_lost(message(where(c), ": the others have lost this rank: ", why_self_), wire->rank());
    if (c.root >= 0 && c.root != wire->rank() && of(c.root).lost)
      throw rank_lost(message(where(c), ": ", of(c.root).why), c.root);
  }
  bool stopped(call const& c) const {
    if (!is_message(c)) return broken();
    return over_ || self_lost_ || (c.root >= 0 && of(c.root).lost);
  }
  /// A failure of this rank's own making, told to the others.
  void give_up(std::string const& reason) {
    if (!broken()) fail({notice::lost, wire->rank(), reason}, true);
  }
  void abort(std::string const& why) {
    if (!over_) fail({notice::aborted, wire->rank(), message("rank ", wire->rank(), " has ended it: ", why)}, true);
  }
  [[noreturn]] void lost(int r, call const& c, std::string const& reason) {
    if (!broken() || (r >= 0 && r != wire->rank() && !of(r).lost)) fail({notice::lost, r, reason}, true);
    go_on(c);
    throw rank_lost(message(where(c), ": ", reason), r);
  }
  /// What has been sent should be on its way before this rank says that it ends: MPI moves nothing while nobody calls
  /// it, also of what it says is sent.
  void flush() {
    auto const start = clock::now();
    for (auto waited = clock::duration(0);
         waited < std::chrono::milliseconds(10) || (wire->pending() && waited < std::chrono::milliseconds(100));
         waited = clock::now() - start) {
      wire->progress();
      read_notices();
      std::this_thread::yield();
    }
  }
  /// As far as this rank knows nothing will come from r any more.
  bool is_gone(int r) {
    auto const& p = of(r);
    return p.lost || p.left || (depth_ > 0 && p.returned == run_) || !peers.alive(r);
  }
  std::string why_gone(int r) const {
    auto const& p = of(r);
    if (p.lost) return p.why;
    if (p.left) return message("rank ", r, " has left");
    return depth_ > 0 && p.returned == run_ ? message("rank ", r, " has left: it returned from run")
                                            : message("rank ", r, " is dead: its process has ended");
  }
  [[noreturn]] void diverged(int r, call const& c, std::string const& reason) {
    fail({notice::diverged, r,
          reason + ": every rank must call the same operations with the same sizes, in the same order"},
         true);
    rethrow(c);
  }
  /// A message of another size: this rank or that one is odd. What the others have called decides.
  [[noreturn]] void misfit(int r, call const& c, std::string const& reason) {
    bool const collective = !is_message(c);
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
      read_notices();
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
    for (notice n; wire->read(n);) {
      if (n.kind == notice::lost || n.kind == notice::diverged || n.kind == notice::aborted) {
        fail(n, false);
        continue;
      }
      auto& r = record(n.rank);
      if (n.kind == notice::shrinking) {
        r.shrinks = true;
        r.agreed = n.agreed;
        r.without.assign(records_.size(), false);
        for (std::size_t i = 0; i < records_.size(); ++i)
          r.without[i] = (static_cast<unsigned char>(n.text[i / 8]) >> (i % 8)) & 1;
      }
      if (n.kind == notice::left) r.left = true;
      if (n.kind == notice::released) r.released = true;  // it knows of a failure that this rank will hear of
      if (n.kind == notice::returned) r.returned = n.run;
      if (n.kind == notice::received) wire->received(n.rank, n.bytes), ++moved;
      if (n.kind == notice::away || n.kind == notice::back) {
        r.away = n.kind == notice::away;
        came_back_ = clock::now();
      }
      if (n.kind != notice::waiting) continue;
      // Who waits here may wait while data move between others, for this same call. (Of messages that says nothing.)
      if (waits_in_ && !is_message(*waits_in_) && r.last.kind == notice::waiting && n.sequence == sequence &&
          r.last.sequence == sequence && n.now == *waits_in_ && r.last.now == n.now)
        moved_elsewhere_ += n.bytes != r.last.bytes;
      r.last = n;
      r.heard = clock::now();
      if (n.asks && waits_in_ && !r.left) wire->post(n.rank, word(*waits_in_, waits_for_, false));
    }
  }
  /// Tells r that its message has been received.
  void acknowledge(int r, std::size_t bytes) {
    if (r == wire->rank()) return wire->received(r, bytes);
    if (record(r).left || record(r).lost) return;
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
    auto seen = moved, seen_elsewhere = moved_elsewhere_;
    // A long array may move without a sign of it while MPI is called, and only then. In shared memory nothing moves by
    // that: the one who is waited for may want this core.
    auto const at_work = Rest::woken ? 1ms : c.bytes() > 65536 ? 50ms : 2ms;
    for (;;) {
      if (done()) return;
      auto const now = clock::now();
      if (moved != seen) seen = moved, last = stirred = now, suspect_ = -1, asked = {}, next_tell = now + first_word();
      if (moved_elsewhere_ != seen_elsewhere) seen_elsewhere = moved_elsewhere_, last = now, asked = {};
      if (wire->pending() && wire->progress() > 0) stirred = now;
      read_notices();  // also drives MPI, which moves nothing while nobody calls it
      if (stopped(c)) {
        if (done()) return;  // what has failed meanwhile is for the next operation
        go_on(c);
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
        if (!is_message(c)) judge(c, now - last > patience_with_others());
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
      else if (peers.crowded() || idle > (Rest::woken ? 100us : 10ms))
        std::this_thread::yield();
    }
  }

  /// Polls until done(): that there is a message of c.root, or of any, in however long. Throws when it cannot come any
  /// more; where any may send, once for each rank that is gone. What a rank has sent comes before the news of its end.
  template <class Done>
  void wait_for_message(call const& c, Done done, clock::duration at_most) {
    using namespace std::chrono_literals;
    being_here const here(*this, c, c.root < 0 ? std::vector<int>{} : std::vector<int>{c.root});
    auto const start = clock::now();
    auto next_look = start;
    int suspect = -1;
    clock::time_point suspected{};
    for (;;) {
      if (wire->pending()) wire->progress();
      read_notices();
      if (done()) return;
      if (over_ || self_lost_) go_on(c);
      if (wire->size() == 1 || c.root == wire->rank())
        throw rank_lost(message(where(c), ": this rank has sent itself no such message"), wire->rank());
      auto const now = clock::now();
      if (c.root >= 0 && of(c.root).away) came_back_ = now;
      if (now >= next_look) {
        next_look = now + (suspect < 0 ? 10ms : 1ms);
        family_.tend();
        int gone = -1, others = 0;
        for (int r = 0; r < wire->size(); ++r) {
          if (r == wire->rank() || (c.root >= 0 && r != c.root)) continue;
          if (c.root < 0 && record(r).told) continue;
          ++others;
          if (gone < 0 && is_gone(r)) gone = r;
        }
        if (others == 0 && c.root < 0 && wire->size() > 1)
          throw rank_lost(message(where(c), ": all other ranks are gone"), -1);
        if (gone != suspect) suspect = gone, suspected = now;
        if (gone >= 0 && now - suspected > 30ms) {  // nothing has come from there since
          auto const why = why_gone(gone);
          if (!peers.alive(gone) && !of(gone).lost && !of(gone).left) fail({notice::lost, gone, why}, true);
          record(gone).told = true;
          throw rank_lost(message(where(c), ": ", why), gone);
        }
      }
      if (now - std::max(start, came_back_) > at_most) {
        auto const late = message(deadline_.count(), " ms, the deadline (mpi_options::deadline can be raised)");
        if (c.root >= 0) lost(c.root, c, message("rank ", c.root, " sent nothing for ", late));
        throw rank_lost(message(where(c), ": nobody sent anything for ", late), -1);
      }
      auto const idle = now - start;
      if (idle > 100us || peers.crowded())
        std::this_thread::sleep_for(std::clamp<clock::duration>(idle / 16, 20us, 1ms));
    }
  }

  /// The ranks that are left, as all of them see it (survivors.hpp).
  std::vector<int> agree_on_survivors(call const& c);
  /// The deadline for receiving from any.
  clock::duration deadline() const { return deadline_; }

  std::unique_ptr<mpi_wire> wire;
  mpi_peers peers;
  std::uint64_t sequence = 0;
  bool exchanging = false;  ///< messages to or from arrays that must not go are under way
  std::uint64_t moved = 0;  ///< grows with everything that comes or goes: the deadline begins anew

 private:
  /// While this rank waits it answers those who ask where it is.
  struct being_here {
    being_here(mpi_watch& w, call const& c, std::vector<int> const& late)
        : watch(w), outer_(w.waits_in_), outer_for_(w.waits_for_) {
      w.waits_in_ = &c;
      w.waits_for_ = late.empty() ? -1 : late[0];
      w.suspect_ = -1;
    }
    being_here(being_here const&) = delete;
    being_here& operator=(being_here const&) = delete;
    ~being_here() {
      watch.waits_in_ = outer_;
      watch.waits_for_ = outer_for_;
    }
    mpi_watch& watch;

   private:
    call const* outer_;  // receiving a long message while waiting for one
    int outer_for_;
  };

  peer_record& record(int r) { return records_[static_cast<std::size_t>(r)]; }
  peer_record const& of(int r) const { return records_[static_cast<std::size_t>(r)]; }
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
      go_on(c);
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
          // It does not answer, perhaps because it waited for a rank that is lost, and has given up.
          if (int const x = lost_behind(r); is_message(c) && x >= 0)
            throw rank_lost(message(where(c), ": rank ", r, " waits for rank ", x, ": ", of(x).why), x);
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

  /// Of the ranks that r waited for when it was last heard of, and they for others, one that is lost; or -1.
  int lost_behind(int r) const {
    for (std::size_t steps = 0; steps < records_.size() && r >= 0 && r != wire->rank(); ++steps) {
      if (of(r).lost) return r;
      r = of(r).last.kind == notice::waiting ? of(r).last.waits_for : -1;
    }
    return -1;
  }

  notice word(call const& c, int waits_for, bool asks) const {
    notice n{notice::waiting, wire->rank()};
    n.waits_for = waits_for;
    n.asks = asks;
    n.sequence = sequence;
    n.now = c;
    n.bytes = moved;
    n.recent = recent_;
    return n;
  }
  void tell(call const& c, int waits_for, bool asks) { tell_all(word(c, waits_for, asks)); }
  void tell_all(notice const& n) {
    for (int r = 0; r < wire->size(); ++r)
      if (r != wire->rank() && !record(r).left) wire->post(r, n);
  }

  /// The first failure stands, and the one that ends even messages. Telling it is at best effort: a peer that is gone
  /// must not stop us.
  void fail(notice const& n, bool tell) {
    bool const ends = n.kind != notice::lost;
    if (n.kind == notice::lost && n.rank >= 0) {
      (n.rank == wire->rank() ? self_lost_ : record(n.rank).lost) = true;
      (n.rank == wire->rank() ? why_self_ : record(n.rank).why) = n.text;
      if (n.rank != wire->rank()) wire->forget(n.rank);
    }
    if (!broken() || (ends && !over_)) failure_ = n;
    over_ = over_ || ends;
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
  bool over_ = false, self_lost_ = false;  // for messages, too
  std::string why_self_;
  std::uint64_t begun_ = 0;
  int guards_ = 0;  // of this rank's being away
  int depth_ = 0;   // of run()
  std::uint64_t run_ = 0;
  int suspect_ = -1;
  clock::time_point suspect_since_, came_back_{};
  std::uint64_t moved_elsewhere_ = 0;  // as others say who wait: no progress of this rank's, of which it tells
  call const* waits_in_ = nullptr;
  int waits_for_ = -1;
};

}  // namespace dovetail::comm::detail
