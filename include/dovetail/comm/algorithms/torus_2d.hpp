// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <utility>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::algorithm {

/// Ranks in rows and columns, rank = row × columns + column: reduce-scatter around the row, all-reduce of the part
/// around the column, all-gather around the row. The bytes of a ring in 2 (rows + columns - 2) steps, over the links of
/// a torus (Mikami et al., Massively distributed SGD, 2018). With a host's ranks in a row, only the columns' messages
/// leave hosts.
struct torus_2d {
  static constexpr char const* name = "torus_2d";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce};

  int rows = 0, columns = 0;  ///< 0: as near to a square as the number of ranks allows

  torus_2d part() const { return {}; }
  void check(int ranks) const {
    require(
        (rows == 0 && columns == 0) || (rows >= 1 && columns >= 1 && rows == ranks / columns && ranks % columns == 0),
        "algorithm::torus_2d of ", rows, " rows and ", columns, " columns on ", ranks,
        " ranks: their product must be the number of ranks, or both 0");
  }
  schedule plan(collective const& c) const {
    check(c.ranks);
    int wide = columns;
    if (wide == 0)
      for (wide = 1; c.ranks % wide != 0 || wide * wide < c.ranks;) ++wide;
    std::vector<int> row, column;
    for (int r = 0; r < c.ranks; ++r) {
      if (r / wide == c.rank / wide) row.push_back(r);
      if (r % wide == c.rank % wide) column.push_back(r);
    }
    auto const along = detail::ring_place::of(std::move(row), c.rank);
    auto const across = detail::ring_place::of(std::move(column), c.rank);
    auto const parts = detail::cut(c.all(), along.size(), c.element_size);
    auto const& own = parts[static_cast<std::size_t>(along.index)];
    auto const shares = detail::cut(own, across.size(), c.element_size);
    schedule s;
    detail::ring_reduce_scatter(s, along, parts);
    detail::ring_reduce_scatter(s, across, shares);
    detail::ring_all_gather(s, across, shares, shares[static_cast<std::size_t>(across.index)]);
    detail::ring_all_gather(s, along, parts, own);
    return s;
  }
};

}  // namespace dovetail::comm::algorithm
