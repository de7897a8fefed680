// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// Rabenseifner's all-reduce: halves of ranks exchange halves of the array, then quarters exchange quarters, …, until
/// each rank has its part of the sum; then back. The bytes of a ring in 2 log2 P steps (Rabenseifner, Optimization of
/// collective reduction operations, 2004). reduce_scatter and all_gather are its two halves. If P is no power of two,
/// ranks beyond one hand their array to a neighbor first and get it back last, which costs these two the whole array
/// more each way. Sums are those of a balanced tree over ranks.
struct halving_doubling {
  static constexpr char const* name = "halving_doubling";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce, operation::reduce_scatter, operation::all_gather};

  schedule plan(collective const& c) const {
    schedule s;
    detail::folded const f(c.ranks, c.rank);
    bool const reduces = c.op != operation::all_gather, gathers = c.op != operation::reduce_scatter;
    region const own = c.block(c.rank);
    if (!reduces) s.add().then.push_back({own, {{memory::input, 0, own.size}}});
    if (f.left_out()) {
      s.add().sends.push_back({c.rank - 1, reduces ? c.all() : own});
      s.add().recvs.push_back({c.rank - 1, gathers ? c.all() : own});
      return s;
    }
    if (c.ranks == 1) return s;
    bool const two = f.works_for_two(f.place);
    region const room = reduces ? s.scratch(c.bytes()) : region{};
    if (two) {
      auto& step = s.add();
      if (reduces) {
        step.recvs.push_back({c.rank + 1, room});
        step.then.push_back({c.all(), {c.all(), room}});
      } else {
        step.recvs.push_back({c.rank + 1, c.block(c.rank + 1)});
      }
    }
    if (reduces)
      for (int far = f.power / 2; far > 0; far /= 2) halve(s, c, f, far, room);
    if (gathers)
      for (int far = 1; far < f.power; far *= 2) {
        auto& step = s.add();
        int const partner = f.rank_at(f.place ^ far);
        step.sends.push_back({partner, places(c, f, f.place & ~(far - 1), far)});
        step.recvs.push_back({partner, places(c, f, (f.place ^ far) & ~(far - 1), far)});
      }
    if (two) s.add().sends.push_back({c.rank + 1, gathers ? c.all() : c.block(c.rank + 1)});
    return s;
  }

 private:
  /// The part of the array that belongs to n places from `first` on. all_reduce cuts it evenly; for the others it is
  /// the shards of the ranks that are at these places.
  static region places(collective const& c, detail::folded const& f, int first, int n) {
    if (c.op == operation::all_reduce) return joined(c.block(first, f.power), c.block(first + n - 1, f.power));
    int const last = first + n - 1;
    return joined(c.block(f.rank_at(first)), c.block(f.rank_at(last) + f.works_for_two(last)));
  }
  static region joined(region a, region b) { return {a.where, a.begin, b.begin + b.size - a.begin}; }

  static void halve(schedule& s, collective const& c, detail::folded const& f, int far, region room) {
    int const mine = f.place & ~(far - 1), theirs = mine ^ far, partner = f.rank_at(f.place ^ far);
    region const keep = places(c, f, mine, far), came{memory::scratch, room.begin, keep.size};
    auto& step = s.add();
    step.sends.push_back({partner, places(c, f, theirs, far)});
    step.recvs.push_back({partner, came});
    step.then.push_back({keep, mine < theirs ? std::vector{keep, came} : std::vector{came, keep}});
  }
};

}  // namespace dovetail::comm::algorithm
