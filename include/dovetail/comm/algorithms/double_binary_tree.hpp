// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// Two binary trees, each for one half of the array, in pieces that follow each other up and down: a rank that has two
/// children in one tree has none in the other, so each sends and receives about twice the array, as in a ring, in about
/// 4 log2 P steps and one for each piece (Sanders, Speck & Träff, Two-tree algorithms for full bandwidth broadcast,
/// reduction and scan, 2009; NCCL's trees). For arrays of middle size on many ranks.
struct double_binary_tree {
  static constexpr char const* name = "double_binary_tree";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce};

  std::size_t piece_bytes = 1 << 16;  ///< an array is cut into pieces of about so much

  schedule plan(collective const& c) const {
    std::map<int, schedule_step> at;  // by the time at which messages are under way; each needs earlier ones only
    schedule s;
    if (c.ranks == 1) return s;
    for (int which = 0; which < 2; ++which) add_tree(s, c, which, at);
    for (auto& [time, step] : at) s.steps.push_back(std::move(step));
    return s;
  }

  /// The parent of a rank in the first (0) or second (1) tree; -1: it is the root.
  static int parent(int ranks, int rank, int which) {
    if (which == 0) return parent(ranks, rank);
    // Mirrored, or, of an odd number, moved on by one: leaves become inner nodes.
    bool const even = ranks % 2 == 0;
    int const p = parent(ranks, even ? ranks - 1 - rank : (rank + ranks - 1) % ranks);
    return p < 0 ? p : even ? ranks - 1 - p : (p + 1) % ranks;
  }

 private:
  /// In order: ranks with a lowest bit b are at one height, and the odd ones are leaves. Rank 0 is above the whole.
  static int parent(int ranks, int rank) {
    if (rank == 0) return -1;
    int const bit = rank & -rank, up = (rank ^ bit) | (bit * 2);
    return up >= ranks ? rank ^ bit : up;
  }

  void add_tree(schedule& s, collective const& c, int which, std::map<int, schedule_step>& at) const {
    auto const n = static_cast<std::size_t>(c.ranks);
    std::vector<int> up(n), height(n, 0), depth(n, 0), children;
    for (int r = 0; r < c.ranks; ++r) {
      up[static_cast<std::size_t>(r)] = parent(c.ranks, r, which);
      if (up[static_cast<std::size_t>(r)] == c.rank) children.push_back(r);
    }
    for (std::size_t r = 0; r < n; ++r)
      for (int p = up[r]; p >= 0; p = up[static_cast<std::size_t>(p)]) {
        auto& h = height[static_cast<std::size_t>(p)];
        h = std::max(h, ++depth[r]);
      }
    int const tall = *std::max_element(height.begin(), height.end());
    auto const me = static_cast<std::size_t>(c.rank);
    auto const half = c.block(which, 2);
    int const count =
        static_cast<int>(std::clamp<std::size_t>(half.size / std::max<std::size_t>(piece_bytes, 1), 1, 32));
    auto const pieces = detail::cut(half, count, c.element_size);
    std::vector<region> rooms;
    for (std::size_t i = 0; i < children.size(); ++i) rooms.push_back(s.scratch(detail::largest(pieces)));
    for (int k = 0; k < count; ++k) {
      auto const& piece = pieces[static_cast<std::size_t>(k)];
      if (!children.empty()) {  // a piece goes up when the taller child has it
        auto& step = at[k + height[me]];
        std::vector<region> sources{piece};
        for (std::size_t i = 0; i < children.size(); ++i) {
          region const came{memory::scratch, rooms[i].begin, piece.size};
          step.recvs.push_back({children[i], came});
          sources.insert(children[i] < c.rank ? sources.begin() : sources.end(), came);
        }
        step.then.push_back({piece, sources});
      }
      if (up[me] >= 0) at[k + height[static_cast<std::size_t>(up[me])]].sends.push_back({up[me], piece});
      int const down = k + tall + 1 + depth[me];
      for (int const child : children) at[down].sends.push_back({child, piece});
      if (up[me] >= 0) at[down - 1].recvs.push_back({up[me], piece});
    }
  }
};

}  // namespace dovetail::comm::algorithm
