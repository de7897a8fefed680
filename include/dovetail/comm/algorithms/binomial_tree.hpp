// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// A binomial tree: broadcast in log2 P steps of the whole array; all_reduce goes up to rank 0 and down again. Few
/// messages in all: for small arrays. Sums are those of a tree over the ranks in their order.
struct binomial_tree {
  static constexpr char const* name = "binomial_tree";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce, operation::broadcast};

  schedule plan(collective const& c) const {
    schedule s;
    int const root = c.op == operation::broadcast ? c.root : 0;
    auto const at = detail::ring_place::of(detail::all_ranks_from(root, c.ranks), c.rank);
    if (c.op == operation::all_reduce) detail::tree_reduce(s, at, c.all());
    detail::tree_broadcast(s, at, c.all());
    return s;
  }
};

}  // namespace dovetail::comm::algorithm
