// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What several algorithms are made of: rings and trees over some of the ranks.

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/comm/binomial.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::comm::detail {

inline region copy_of(region r, memory where) { return {where, r.begin, r.size}; }

/// `all` cut into `parts` regions of whole elements, as equal as may be.
inline std::vector<region> cut(region all, int parts, std::size_t element_size) {
  std::vector<region> regions;
  for (int i = 0; i < parts; ++i) {
    auto const s = shard(all.size / element_size, parts, i);
    regions.push_back({all.where, all.begin + s.begin * element_size, s.size() * element_size});
  }
  return regions;
}
inline std::size_t largest(std::vector<region> const& regions) {
  std::size_t most = 0;
  for (auto const& r : regions) most = r.size > most ? r.size : most;
  return most;
}

/// Where this rank stands in a ring of ranks.
struct ring_place {
  std::vector<int> members;
  int index = 0;

  static ring_place of(std::vector<int> all, int rank) {
    ring_place p{std::move(all), 0};
    while (p.members[static_cast<std::size_t>(p.index)] != rank) ++p.index;
    return p;
  }
  int size() const { return static_cast<int>(members.size()); }
  std::size_t wrap(int i) const { return static_cast<std::size_t>(((i % size()) + size()) % size()); }
  int next() const { return members[wrap(index + 1)]; }
  int last() const { return members[wrap(index - 1)]; }
};

/// blocks[i], a region of data, becomes the sum over the ring on the ring's member i. It passes the members i + 1, …,
/// i, each of which adds its own: n - 1 steps of one block.
inline void ring_reduce_scatter(schedule& s, ring_place const& at, std::vector<region> const& blocks) {
  if (at.size() == 1) return;
  region const room = s.scratch(largest(blocks));
  for (int i = 0; i + 1 < at.size(); ++i) {
    auto const& out = blocks[at.wrap(at.index - i - 1)];
    auto const& in = blocks[at.wrap(at.index - i - 2)];
    region const came{memory::scratch, room.begin, in.size};
    auto& step = s.add();
    step.sends.push_back({at.next(), out});
    step.recvs.push_back({at.last(), came});
    step.then.push_back({in, {came, in}});
  }
}
/// Every member gets every block; member i brings blocks[i], which lies at `own`.
inline void ring_all_gather(schedule& s, ring_place const& at, std::vector<region> const& blocks, region own) {
  for (int i = 0; i + 1 < at.size(); ++i) {
    auto const& out = blocks[at.wrap(at.index - i)];
    auto const& in = blocks[at.wrap(at.index - i - 1)];
    auto& step = s.add();
    step.sends.push_back({at.next(), i == 0 ? own : out});
    step.recvs.push_back({at.last(), in});
  }
}

/// `what` goes from members[0] to all. The farthest member first: it has the largest tree below it.
inline void tree_broadcast(schedule& s, ring_place const& at, region what) {
  auto const member = [&](int index) { return at.members[at.wrap(index)]; };
  if (at.index > 0) s.add().recvs.push_back({member(binomial_parent(at.index)), what});
  binomial_children(at.index, at.size(), [&](int child) { s.add().sends.push_back({member(child), what}); });
}
/// `what` of members[0] becomes the sum over all; that of the others is used up. Neighbors are added first.
inline void tree_reduce(schedule& s, ring_place const& at, region what) {
  if (at.size() == 1) return;
  region room{};
  for (int far = 1; far < at.size(); far *= 2) {
    if (at.index % (2 * far) == far) {
      s.add().sends.push_back({at.members[at.wrap(at.index - far)], what});
      return;
    }
    if (at.index + far >= at.size()) continue;
    if (room.size == 0) room = s.scratch(what.size);
    auto& step = s.add();
    step.recvs.push_back({at.members[at.wrap(at.index + far)], room});
    step.then.push_back({what, {what, room}});
  }
}

inline std::vector<int> all_ranks(int n) {
  std::vector<int> all;
  for (int r = 0; r < n; ++r) all.push_back(r);
  return all;
}
/// The ranks from `first` on, around.
inline std::vector<int> all_ranks_from(int first, int n) {
  std::vector<int> all;
  for (int i = 0; i < n; ++i) all.push_back((first + i) % n);
  return all;
}

/// Any number of ranks as a power of two: of the first 2 × rest ranks, each odd one has its work done by the even one
/// before it.
struct folded {
  int power = 1, rest = 0, place = 0;  ///< place of this rank among those that work; -1: it has the one before it work

  folded(int ranks, int rank) {
    while (power * 2 <= ranks) power *= 2;
    rest = ranks - power;
    place = rank >= 2 * rest ? rank - rest : rank % 2 == 0 ? rank / 2 : -1;
  }
  /// The rank at a place.
  int rank_at(int p) const { return p < rest ? 2 * p : p + rest; }
  /// Whether the rank at this place works for the next rank as well.
  bool works_for_two(int p) const { return p < rest; }
  bool left_out() const { return place < 0; }
};

}  // namespace dovetail::comm::detail
