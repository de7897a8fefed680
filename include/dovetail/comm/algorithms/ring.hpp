// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// Ranks in a circle, each of which sends to the next and receives from the one before: every link carries the same.
/// reduce_scatter and all_gather take P - 1 steps of a P-th of the array each, all_reduce both (Patarasuk & Yuan,
/// Bandwidth optimal all-reduce algorithms, 2009); a broadcast goes around in pieces. The fewest bytes, the most steps:
/// for large arrays. Part b is summed from rank b + 1 around to rank b.
struct ring {
  static constexpr char const* name = "ring";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce, operation::reduce_scatter, operation::all_gather,
                                            operation::broadcast};

  std::size_t broadcast_piece_bytes = 1 << 16;  ///< a broadcast is cut into pieces of about so much

  schedule plan(collective const& c) const {
    schedule s;
    auto const at = detail::ring_place::of(detail::all_ranks(c.ranks), c.rank);
    if (c.op == operation::broadcast) {
      broadcast(s, c);
      return s;
    }
    auto const blocks = detail::cut(c.all(), c.ranks, c.element_size);
    auto const own = c.block(c.rank);
    if (c.op == operation::all_gather)
      s.add().then.push_back({own, {{memory::input, 0, own.size}}});
    else
      detail::ring_reduce_scatter(s, at, blocks);
    if (c.op != operation::reduce_scatter) detail::ring_all_gather(s, at, blocks, own);
    return s;
  }

 private:
  /// Piece i is at the d-th rank behind the root after step i + d - 1.
  void broadcast(schedule& s, collective const& c) const {
    int const d = (c.rank - c.root + c.ranks) % c.ranks, last = c.ranks - 1;
    auto const wanted = c.bytes() / std::max<std::size_t>(broadcast_piece_bytes, 1);
    int const pieces = static_cast<int>(std::clamp<std::size_t>(wanted, 1, 256));
    auto const piece = detail::cut(c.all(), pieces, c.element_size);
    for (int t = 0; t < pieces + c.ranks - 2; ++t) {
      int const in = t - d + 1, out = t - d;
      auto& step = s.add();
      if (d != 0 && in >= 0 && in < pieces)
        step.recvs.push_back({(c.rank + last) % c.ranks, piece[static_cast<std::size_t>(in)]});
      if (d != last && out >= 0 && out < pieces)
        step.sends.push_back({(c.rank + 1) % c.ranks, piece[static_cast<std::size_t>(out)]});
    }
  }
};

}  // namespace dovetail::comm::algorithm
