// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/sync/agreement.hpp>

namespace dovetail::sync::detail {

/// Where a rank is among hosts, whose ranks need not follow one another. The first `lanes` ranks of every host, as many
/// as the smallest has, speak for it with their like on the others.
struct host_place {
  int host = 0, hosts = 1;
  int local = 0, here = 1;  ///< its number among the ranks of its host, and how many they are
  int lanes = 1;

  DOVETAIL_COLD static host_place of(comm::topology const& t, int rank) {
    require(rank >= 0 && rank < t.ranks(), "sync::exchange::hierarchical: rank ", rank, " of the ", t.ranks(),
            " ranks of a topology");
    host_place p{.host = t.host(rank), .hosts = t.hosts(), .lanes = t.ranks()};
    for (int h = 0; h < p.hosts; ++h) p.lanes = std::min(p.lanes, static_cast<int>(t.ranks_on(h).size()));
    auto const mine = t.ranks_on(p.host);
    p.here = static_cast<int>(mine.size());
    p.local = static_cast<int>(std::find(mine.begin(), mine.end(), rank) - mine.begin());
    return p;
  }
  bool speaks() const { return local < lanes; }
  /// Which of its host's ranks exchanges a bucket with other hosts.
  int lane_of(std::size_t bucket) const { return static_cast<int>(bucket % static_cast<std::size_t>(lanes)); }
};

/// A communicator's ranks by host: those inside of this rank's, and those who speak for the hosts in this rank's lane,
/// in the order of the hosts. Refers to nothing; what it is made of must outlive it.
template <communicator C>
class host_groups {
 public:
  using part = decltype(std::declval<C&>().split(0, 0));
  static_assert(comm::detail::must_keep_replicas_equal<part>::holds);

  /// Collective: two splits.
  DOVETAIL_COLD explicit host_groups(C& c) {
    auto const hosts = comm::topology::of(comm::topology_of(c).host_of);
    place_ = host_place::of(hosts, c.rank());
    inside_.ranks = hosts.ranks_on(place_.host);
    inside_.comm.emplace(c.split(place_.host, c.rank()));
    between_.comm.emplace(c.split(std::min(place_.local, place_.lanes), place_.host));
    for (int h = 0; h < place_.hosts && place_.speaks(); ++h)
      between_.ranks.push_back(hosts.ranks_on(h)[static_cast<std::size_t>(place_.local)]);
    if (!place_.speaks()) between_.comm.reset();  // of ranks who say nothing
    joining_ = moved();
  }

  host_place const& place() const { return place_; }
  /// What they have moved since they were made.
  comm::traffic traffic() const { return moved() - joining_; }

  /// f(), which calls `meet`, `inside` and `between`. When it throws, this rank leaves the groups, so that who waits
  /// for it there need not wait for long, and what a group's collective has failed of is said in the numbers of `c`, as
  /// all ranks of it see it: a rank that misses one which misses another itself does not name the first. What `c`
  /// itself fails of, its own deadline for instance, goes before.
  template <class F>
  void run(C& c, F const& f) {
    failing_ = nullptr;
    try {
      f();
    } catch (rank_diverged const& e) {
      failed(c, e, true);
    } catch (comm_error const& e) {
      failed(c, e, false);
    } catch (...) {
      leave();
      throw;
    }
  }
  /// All ranks are at this bucket. Waits for who is away, and knows who is at another one: the groups need not.
  void meet(C& c, comm::subject const& about) {
    with_subject(c, about, [&] { c.barrier(); });
  }
  /// f(communicator) among the ranks of this host, if there are several.
  template <class F>
  void inside(comm::subject const& about, F const& f) {
    if (place_.here > 1) on(inside_, about, f);
  }
  /// f(communicator) among those who speak for the hosts, if there are several: by them only.
  template <class F>
  void between(comm::subject const& about, F const& f) {
    if (place_.hosts > 1) on(between_, about, f);
  }

 private:
  struct group {
    char const* where;
    std::optional<part> comm{};
    std::vector<int> ranks{};  ///< in the numbers of the whole
  };
  template <class F>
  void on(group& g, comm::subject const& about, F const& f) {
    failing_ = &g;
    with_subject(*g.comm, about, [&] { f(*g.comm); });
    failing_ = nullptr;
  }
  comm::traffic moved() const {
    comm::traffic all = left_;
    for (auto const* g : {&inside_, &between_})
      if (g->comm) all = all + g->comm->traffic();
    return all;
  }
  DOVETAIL_COLD void leave() {
    left_ = moved();
    inside_.comm.reset();
    between_.comm.reset();
  }
  /// Within a catch.
  [[noreturn]] DOVETAIL_COLD void failed(C& c, comm_error const& e, bool diverged) {
    leave();
    if (!failing_) throw;
    settle(c, e, diverged);
  }
  [[noreturn]] DOVETAIL_COLD void settle(C& c, comm_error const& e, bool has_diverged) {
    struct verdict {
      std::int64_t diverged, rank;
    };
    auto const at = static_cast<std::size_t>(e.rank);
    verdict const mine{has_diverged, at < failing_->ranks.size() ? failing_->ranks[at] : -1};
    std::vector<verdict> all(static_cast<std::size_t>(c.size()));
    c.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
    // Nobody is lost. The first who diverged, or the last of those who wait for each other.
    auto found = std::find_if(all.begin(), all.end(), [](verdict const& v) { return v.diverged != 0; });
    bool const diverged = found != all.end();
    if (!diverged) found = all.begin();
    std::int64_t who = found->rank;
    for (int i = 0; !diverged && i < c.size() && who >= 0; ++i) {
      auto const next = all[static_cast<std::size_t>(who)].rank;
      if (next < 0 || next == who) break;
      who = next;
    }
    std::string ranks;
    for (int const r : failing_->ranks) ranks += message(ranks.empty() ? "" : ", ", r);
    auto const what = message(failing_->where, ", where ranks 0, 1, ... are ranks ", ranks, " of all: ", e.what(),
                              "; it is rank ", who, " of all");
    if (diverged) throw rank_diverged(what, static_cast<int>(who));
    throw rank_lost(what, static_cast<int>(who));
  }

  host_place place_;
  group inside_{"inside of a host"}, between_{"between hosts"};
  group const* failing_ = nullptr;  ///< whose collective is under way; nullptr: of all ranks, or none
  comm::traffic joining_, left_;
};

}  // namespace dovetail::sync::detail
