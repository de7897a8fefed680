// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// all_gather and all_to_all in log2 P steps, for any P (Bruck, Ho, Kipnis, Upfal & Weathersby, Efficient algorithms
/// for all-to-all communications in multiport message-passing systems, 1997). all_gather moves the fewest bytes;
/// all_to_all sends each chunk on once for every bit of its distance, log2 P / 2 times the bytes: for small chunks.
struct bruck {
  static constexpr char const* name = "bruck";
  static constexpr sum_order sums = sum_order::rank_order;  // it adds nothing
  static constexpr operation_set implements{operation::all_gather, operation::all_to_all};

  schedule plan(collective const& c) const {
    schedule s;
    c.op == operation::all_gather ? gather(s, c) : exchange(s, c);
    return s;
  }

 private:
  /// Rank r has the blocks r, r + 1, …, r + have - 1, around.
  static void gather(schedule& s, collective const& c) {
    region const own = c.block(c.rank);
    s.add().then.push_back({own, {{memory::input, 0, own.size}}});
    for (int have = 1; have < c.ranks; have *= 2) {
      int const more = std::min(have, c.ranks - have), from = (c.rank + have) % c.ranks;
      auto& step = s.add();
      add_blocks(step.sends, c, (c.rank - have + c.ranks) % c.ranks, c.rank, more);
      add_blocks(step.recvs, c, from, from, more);
    }
  }
  /// n blocks from `first` on, around: one message, or two.
  static void add_blocks(std::vector<transfer>& to, collective const& c, int peer, int first, int n) {
    int const whole = std::min(n, c.ranks - first);
    auto const add = [&](int begin, int end) {
      auto const a = c.block(begin), b = c.block(end - 1);
      to.push_back({peer, {a.where, a.begin, b.begin + b.size - a.begin}});
    };
    add(first, first + whole);
    if (whole < n) add(0, n - whole);
  }

  /// Chunk i of the rotated array has to go i ranks further; step k sends those with bit k of i 2^k ranks on.
  static void exchange(schedule& s, collective const& c) {
    std::size_t const chunk = c.block(0).size;
    auto const n = static_cast<std::size_t>(c.ranks);
    region const rotated = s.scratch(chunk * n), out = s.scratch(chunk * n), in = s.scratch(chunk * n);
    auto const at = [&](region r, std::size_t i) { return region{r.where, r.begin + i * chunk, chunk}; };
    auto& first = s.add();
    for (std::size_t i = 0; i < n; ++i)
      first.then.push_back(
          {at(rotated, i), {detail::copy_of(c.block((c.rank + static_cast<int>(i)) % c.ranks), memory::input)}});
    for (int far = 1; far < c.ranks; far *= 2) {
      std::vector<std::size_t> moves;
      for (std::size_t i = 0; i < n; ++i)
        if (i & static_cast<std::size_t>(far)) moves.push_back(i);
      for (std::size_t j = 0; j < moves.size(); ++j)
        s.steps.back().then.push_back({at(out, j), {at(rotated, moves[j])}});
      auto& step = s.add();
      std::size_t const bytes = moves.size() * chunk;
      step.sends.push_back({(c.rank + far) % c.ranks, {out.where, out.begin, bytes}});
      step.recvs.push_back({(c.rank - far + c.ranks) % c.ranks, {in.where, in.begin, bytes}});
      for (std::size_t j = 0; j < moves.size(); ++j) step.then.push_back({at(rotated, moves[j]), {at(in, j)}});
    }
    for (int i = 0; i < c.ranks; ++i)  // what came i ranks far is of the rank i before
      s.steps.back().then.push_back(
          {c.block((c.rank - i + c.ranks) % c.ranks), {at(rotated, static_cast<std::size_t>(i))}});
  }
};

}  // namespace dovetail::comm::algorithm
