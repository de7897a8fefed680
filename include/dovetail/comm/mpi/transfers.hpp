// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/mpi/family.hpp>
#include <dovetail/comm/mpi/flow.hpp>
#include <dovetail/comm/mpi/options.hpp>
#include <dovetail/comm/mpi/watch.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// Of a communicator over MPI what its collectives are made of: arrays on their way to and from other ranks. Only
/// non-blocking operations are used, and polled against the deadline: a blocking one never returns when a peer has
/// died.
class mpi_transfers {
 public:
  struct piece {
    int rank;
    std::byte* data;
    std::size_t bytes;
  };

  mpi_transfers(std::unique_ptr<mpi_wire> wire, mpi_options const& o, std::shared_ptr<mpi_family> family)
      : options(o), family_(std::move(family)), watch_(std::move(wire), *family_, o) {}
  mpi_transfers(mpi_transfers const&) = delete;
  mpi_transfers& operator=(mpi_transfers const&) = delete;

  int rank() const { return watch_.wire->rank(); }
  int size() const { return watch_.wire->size(); }
  MPI_Comm handle() const { return watch_.wire->on(mpi_wire::collective); }
  std::shared_ptr<mpi_family> const& family() const { return family_; }
  mpi_peers const& peers() const { return watch_.peers; }
  mpi_watch& watch() { return watch_; }
  /// After a failure MPI may still write to memory that was given to `exchange` or `start`.
  bool unfinished() const { return unfinished_; }

  void begin(call const& c) {
    may_call(c);
    guarded(c, [&](call const&) { watch_.begin(c); });
  }

  /// Polls until done(); missing() lists the ranks that are waited for, `tag` is what their messages carry, or -1.
  template <class Done, class Missing, class Rest>
  void wait_until(call const& c, int tag, Done done, Missing missing, Rest rest) {
    guarded(c, [&](call const&) { watch_.wait_until(c, tag, done, missing, rest); });
  }

  static constexpr int checking = 2;  ///< the phase before an operation in which its call is compared

  /// Sends and receives all pieces at once. An operation may have phases 0 and 1.
  void exchange(call const& c, int phase, std::span<piece const> sends, std::span<piece const> recvs) {
    guarded(c, [&](call const&) {
      watch_.go_on(c);  // who has said that it takes nothing any more posts no receive
      int const tag = tag_in(c, phase);
      for (auto const& p : recvs)
        flows_.emplace_back(handle(), mpi_flow::receives, p.rank, tag, p.data, p.bytes, longest(p, sends));
      for (auto const& p : sends)
        flows_.emplace_back(handle(), mpi_flow::sends, p.rank, tag, p.data, p.bytes, longest(p, recvs));
      complete(c, tag);
    });
  }
  /// Begins to send or to receive, and does not wait: the array stays as it is until `finish`. Of one phase and one
  /// other rank several may be under way, each not longer than a message; they are matched in their order.
  mpi_flow* start(call const& c, int phase, mpi_flow::direction way, piece const& p) {
    mpi_flow* started = nullptr;
    guarded(c, [&](call const&) {
      watch_.go_on(c);
      flows_.emplace_back(handle(), way, p.rank, tag_in(c, phase), p.data, p.bytes, options.largest_message);
      started = &flows_.back();
      watch_.exchanging = true;
      watch_.moved += started->advance();
    });
    return started;
  }
  /// Until it is done; there is no such flow afterwards.
  void finish(call const& c, int phase, mpi_flow* flow) {
    guarded(c, [&](call const&) {
      complete(c, tag_in(c, phase), flow);
      flows_.remove_if([&](mpi_flow const& f) { return &f == flow; });
      if (flows_.empty()) none_under_way();
    });
  }
  /// For who leaves an operation by an exception that did not come from here.
  void abandon_flows() {
    if (!flows_.empty()) abandon();
  }
  /// Whatever is under way.
  void advance_flows() {
    for (auto& f : flows_)
      if (!f.finished()) watch_.moved += f.advance();
  }
  /// Everybody's `mine`.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::vector<T> share(call const& c, T const& mine) {
    return share(c, mine, 0, size());
  }
  /// That of the ranks first, first + 1, ... of which this one is one.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::vector<T> share(call const& c, T const& mine, int first, int count) {
    auto all = std::make_unique<std::vector<T>>(static_cast<std::size_t>(count), mine);
    std::vector<piece> sends, recvs;
    auto const of = [&](int r) { return reinterpret_cast<std::byte*>(&(*all)[static_cast<std::size_t>(r - first)]); };
    for (int r = first; r < first + count; ++r) {
      if (r == rank()) continue;
      sends.push_back({r, of(rank()), sizeof mine});
      recvs.push_back({r, of(r), sizeof mine});
    }
    try {
      exchange(c, 1, sends, recvs);
    } catch (...) {
      if (unfinished_) static_cast<void>(all.release());  // MPI may still write there
      throw;
    }
    return std::move(*all);
  }

  mpi_options const options;

 protected:
  ~mpi_transfers() = default;

  /// The longest message of an array that is sent or received, where `back` are those of the other way. MPI asks before
  /// it sends a long message. Between two ranks that send each other one, the answer to the second question may wait on
  /// the wire behind the whole first message, and both ways take as long as one behind the other. So arrays that cross
  /// go in messages for which MPI does not ask.
  std::size_t longest(piece const& p, std::span<piece const> back) const {
    constexpr std::size_t unasked = std::size_t{1} << 15;
    bool const crosses = p.bytes > 4 * unasked && std::any_of(back.begin(), back.end(), [&](piece const& other) {
                           return other.rank == p.rank && other.bytes > 4 * unasked;
                         });
    return crosses ? std::min(options.largest_message, unasked) : options.largest_message;
  }
  /// Runs f; what MPI itself reports becomes a failure of the communicator, of which the others hear.
  template <class F>
  void guarded(call const& c, F f) {
    try {
      try {
        f(c);
      } catch (mpi_flow::misfit const& m) {
        watch_.misfit(m.rank, c,
                      message("rank ", m.rank, " sent ", m.got > m.expected ? "more" : message(m.got, " bytes"),
                              " where ", m.expected, " bytes were expected"));
      } catch (rank_lost const& e) {  // of nobody if it is not known who did not come
        if (!watch_.broken() && c.op != operation::wait_message) watch_.lost(e.rank, c, e.what());
        throw;
      } catch (comm_error const& e) {
        if (!watch_.broken()) watch_.lost(e.rank >= 0 ? e.rank : rank(), c, e.what());
        throw;
      }
    } catch (...) {
      abandon_flows();
      throw;
    }
  }
  void may_call(call const& c) const {
    family_->mark.check(c);
    if (family_->occupied && !watch_.broken())
      throw comm_error(message(c, ": a call that did not return occupies MPI: end the process"), -1);
  }
  /// A tag that tag_of never gives: MPI uses it for messages between the members of a new group, and a notice's would
  /// have them taken for notices.
  static constexpr int of_groups = 1 + (31 << 1 | 15 << 6);
  /// The envelope says what is being called, so that a message of another operation is recognized: 14 bits of 15. Of
  /// neighboring steps no two buckets have the same last four.
  int tag_of(call const& c, int phase) const {
    int const kind = static_cast<int>(c.type) * 3 + static_cast<int>(c.how);
    auto const which =
        watch_.sequence + 7 * static_cast<std::uint64_t>(c.about.step) + 2 * static_cast<std::uint64_t>(c.about.bucket);
    return 1 + (phase | kind << 1 | static_cast<int>(c.op) << 6 | static_cast<int>(which & 15) << 10);
  }
  int tag_in(call const& c, int phase) const {
    return phase == checking ? tag_of({operation::split, dtype::u8, reduction::max}, 0) : tag_of(c, phase);
  }
  /// Until all flows are finished; then, or when that fails, there are none any more.
  void complete(call const& c, int tag) {
    complete(c, tag, nullptr);
    flows_.clear();
    none_under_way();
  }
  void none_under_way() {
    watch_.exchanging = false;
    if (watch_.broken()) watch_.tell_released();  // of what it heard while they were completed
  }
  /// Until one is, while the others go on, or (nullptr) all.
  void complete(call const& c, int tag, mpi_flow const* one) {
    auto first = flows_.begin();
    auto const done = [&] {
      bool all = true;
      for (auto f = first; f != flows_.end(); ++f) {
        if (!f->finished()) watch_.moved += f->advance();
        all = all && f->finished();
      }
      while (first != flows_.end() && first->finished()) ++first;
      return one ? one->finished() : all;
    };
    auto const missing = [&] {
      std::vector<int> ranks;
      for (auto const& f : flows_)
        if ((!one || one == &f) && !f.finished() && std::find(ranks.begin(), ranks.end(), f.rank()) == ranks.end())
          ranks.push_back(f.rank());
      return ranks;
    };
    watch_.exchanging = true;
    watch_.wait_until(c, tag, done, missing, mpi_watch::sleeper{});
  }
  /// After a failure the arrays belong to the caller again, who may free them. MPI cannot take back a message that its
  /// receiver has begun to take: it goes on reading from the one array and writing to the other whenever somebody calls
  /// it. So each rank takes back the receives that nothing has come for, completes the others, and says when it has;
  /// what has not been sent to such a rank by then is never asked for. Bounded, for the other rank may be blocked.
  void abandon() {
    auto const start = mpi_clock::now();
    auto look = start;
    for (;;) {
      bool received = true, sent = true;
      auto const now = mpi_clock::now();
      bool const looks = now >= look;
      if (looks) look = now + std::chrono::milliseconds(2);
      for (auto& f : flows_) {
        if (f.abandon()) continue;
        if (!f.is_send())
          received = false;
        else if (!looks || !watch_.released(f.rank()))
          sent = false;
      }
      if (received) watch_.tell_released();
      if ((received && sent) || now - start > std::chrono::seconds(1)) break;
      if (now - start > std::chrono::milliseconds(1)) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    watch_.tell_released();
    unfinished_ = std::any_of(flows_.begin(), flows_.end(), [](mpi_flow const& f) { return f.under_way(); });
    if (unfinished_) {  // MPI knows where they lie
      static_cast<void>(new std::list<mpi_flow>(std::move(flows_)));
      static_cast<void>(new std::vector<std::byte>(std::move(first_)));
      static_cast<void>(new std::vector<std::byte>(std::move(incoming_)));
    }
    flows_.clear();
  }

  std::shared_ptr<mpi_family> family_;
  mpi_watch watch_;
  std::list<mpi_flow> flows_;                // which do not move while MPI knows them
  std::vector<std::byte> first_, incoming_;  // that messages are received into: MPI may still write there
  bool unfinished_ = false;
};

}  // namespace dovetail::comm::detail
