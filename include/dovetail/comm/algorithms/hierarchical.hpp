// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::algorithm {

/// Inside of hosts first, then between them, then back: what leaves a host is what a ring of one rank per host would
/// send. all_reduce: the array has as many lanes as the smallest host has ranks; on every host the l-th rank adds up
/// lane l of the host's ranks, in rank order, the l-th ranks of the hosts all-reduce it around a ring, and give it to
/// their hosts. all_gather and broadcast go through the first rank of each host. With one host and a rank each on
/// several these are direct and ring.
struct hierarchical {
  static constexpr char const* name = "hierarchical";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce, operation::all_gather, operation::broadcast};

  topology hosts;  ///< empty: what the communicator says

  hierarchical on(topology const& known) const { return hosts.empty() ? hierarchical{known} : *this; }
  hierarchical part() const { return {}; }
  void check(int ranks) const {
    require(hosts.empty() || hosts.ranks() == ranks, "algorithm::hierarchical: a topology of ", hosts.ranks(),
            " ranks on ", ranks, " ranks");
  }
  schedule plan(collective const& c) const {
    check(c.ranks);
    require(hosts == topology::of(hosts.host_of),
            "comm::algorithm::hierarchical: hosts are numbered from 0 in the order of their first ranks: make the "
            "topology with comm::topology::of(labels)");
    groups const g(hosts.empty() ? topology::one_host(c.ranks) : hosts, c.rank);
    schedule s;
    c.op == operation::all_reduce ? reduce(s, c, g) : c.op == operation::all_gather ? gather(s, c, g) : spread(s, c, g);
    return s;
  }

 private:
  struct groups {
    groups(topology const& t, int rank) : host(t.host(rank)) {
      for (int h = 0; h < t.hosts(); ++h) of.push_back(t.ranks_on(h));
      for (auto const& ranks : of) lanes = std::min(lanes, ranks.size());
      for (auto const& ranks : of) leaders.push_back(ranks.front());
      lane = static_cast<std::size_t>(std::find(mine().begin(), mine().end(), rank) - mine().begin());
    }
    std::vector<int> const& mine() const { return of[static_cast<std::size_t>(host)]; }
    bool leads() const { return lane == 0; }
    /// The rank at the same place on every host.
    std::vector<int> across() const {
      std::vector<int> all;
      for (auto const& ranks : of) all.push_back(ranks[lane]);
      return all;
    }
    std::vector<std::vector<int>> of;
    std::vector<int> leaders;
    int host;
    std::size_t lane = 0, lanes = static_cast<std::size_t>(-1);
  };

  static void reduce(schedule& s, collective const& c, groups const& g) {
    auto const lanes = detail::cut(c.all(), static_cast<int>(g.lanes), c.element_size);
    bool const works = g.lane < g.lanes;
    region const own = works ? lanes[g.lane] : region{};
    {
      auto& step = s.add();
      std::vector<region> sources;
      for (std::size_t i = 0; i < g.mine().size(); ++i) {
        int const r = g.mine()[i];
        if (i < g.lanes && i != g.lane) step.sends.push_back({r, lanes[i]});
        if (!works) continue;
        sources.push_back(i == g.lane ? own : s.scratch(own.size));
        if (i != g.lane) step.recvs.push_back({r, sources.back()});
      }
      if (works) step.then.push_back({own, sources});
    }
    if (works) {
      auto const at = detail::ring_place::of(g.across(), c.rank);
      auto const blocks = detail::cut(own, at.size(), c.element_size);
      detail::ring_reduce_scatter(s, at, blocks);
      detail::ring_all_gather(s, at, blocks, blocks[static_cast<std::size_t>(at.index)]);
    }
    auto& step = s.add();
    for (std::size_t i = 0; i < g.mine().size(); ++i) {
      if (i == g.lane) continue;
      if (works) step.sends.push_back({g.mine()[i], own});
      if (i < g.lanes) step.recvs.push_back({g.mine()[i], lanes[i]});
    }
  }

  /// The blocks of a host's ranks travel together, one message each.
  static void gather(schedule& s, collective const& c, groups const& g) {
    auto const own = c.block(c.rank);
    auto& first = s.add();
    first.then.push_back({own, {{memory::input, 0, own.size}}});
    if (!g.leads()) first.sends.push_back({g.mine().front(), {memory::input, 0, own.size}});
    if (g.leads())
      for (int const r : g.mine())
        if (r != c.rank) first.recvs.push_back({r, c.block(r)});
    if (g.leads()) {
      auto const at = detail::ring_place::of(g.leaders, c.rank);
      for (int i = 0; i + 1 < at.size(); ++i) {
        auto& step = s.add();
        for (int const r : g.of[at.wrap(at.index - i)]) step.sends.push_back({at.next(), c.block(r)});
        for (int const r : g.of[at.wrap(at.index - i - 1)]) step.recvs.push_back({at.last(), c.block(r)});
      }
    }
    auto& last = s.add();  // all but its own block
    auto const parts_without = [&](int r) {
      auto const b = c.block(r);
      return std::vector<region>{{memory::data, 0, b.begin},
                                 {memory::data, b.begin + b.size, c.bytes() - b.begin - b.size}};
    };
    if (!g.leads())
      for (auto const& part : parts_without(c.rank)) last.recvs.push_back({g.mine().front(), part});
    if (g.leads())
      for (int const r : g.mine())
        if (r != c.rank)
          for (auto const& part : parts_without(r)) last.sends.push_back({r, part});
  }

  /// The root stands for its host's first rank.
  static void spread(schedule& s, collective const& c, groups const& g) {
    auto ordered = g.of;
    for (auto& ranks : ordered) {
      auto const root = std::find(ranks.begin(), ranks.end(), c.root);
      if (root != ranks.end()) std::rotate(ranks.begin(), root, ranks.end());
    }
    auto const home = std::find_if(ordered.begin(), ordered.end(), [&](auto const& r) { return r.front() == c.root; });
    std::vector<int> leaders;
    auto const n = static_cast<std::ptrdiff_t>(ordered.size());
    for (std::ptrdiff_t i = 0; i < n; ++i)
      leaders.push_back(ordered[static_cast<std::size_t>((home - ordered.begin() + i) % n)].front());
    auto const& here = ordered[static_cast<std::size_t>(g.host)];
    if (here.front() == c.rank) detail::tree_broadcast(s, detail::ring_place::of(std::move(leaders), c.rank), c.all());
    detail::tree_broadcast(s, detail::ring_place::of(here, c.rank), c.all());
  }
};

}  // namespace dovetail::comm::algorithm
