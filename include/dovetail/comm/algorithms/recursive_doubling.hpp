// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// Pairs of ranks, then pairs of pairs, … exchange all that they have and add it: log2 P steps of the whole array, and
/// two more if P is no power of two. The fewest steps, many bytes: for small arrays (Thakur, Rabenseifner & Gropp,
/// Optimization of collective communication operations in MPICH, 2005, sections 4.4 and 4.5). Sums are those of a
/// balanced tree over the ranks in their order, on all ranks alike.
struct recursive_doubling {
  static constexpr char const* name = "recursive_doubling";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce};

  schedule plan(collective const& c) const {
    schedule s;
    detail::folded const f(c.ranks, c.rank);
    region const all = c.all();
    if (f.left_out()) {
      s.add().sends.push_back({c.rank - 1, all});
      s.add().recvs.push_back({c.rank - 1, all});
      return s;
    }
    if (c.ranks == 1) return s;
    region const room = s.scratch(all.size);
    auto const take = [&](int from, bool send, bool mine_first) {
      auto& step = s.add();
      if (send) step.sends.push_back({from, all});
      step.recvs.push_back({from, room});
      step.then.push_back({all, mine_first ? std::vector{all, room} : std::vector{room, all}});
    };
    if (f.works_for_two(f.place)) take(c.rank + 1, false, true);
    for (int bit = 1; bit < f.power; bit *= 2) take(f.rank_at(f.place ^ bit), true, (f.place & bit) == 0);
    if (f.works_for_two(f.place)) s.add().sends.push_back({c.rank + 1, all});
    return s;
  }
};

}  // namespace dovetail::comm::algorithm
