// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace dovetail::comm::detail {

/// A binomial tree of 0 .. size - 1 from 0: the parent of d is d without its lowest bit. f(child) for each child of d,
/// the one with the largest tree below it first.
template <class F>
constexpr void binomial_children(int d, int size, F f) {
  int const lowest = d == 0 ? size : d & -d;
  int step = 1;
  while (step < lowest && d + step < size) step *= 2;
  for (step /= 2; step > 0; step /= 2) f(d + step);
}
/// Of d > 0.
constexpr int binomial_parent(int d) { return d - (d & -d); }

}  // namespace dovetail::comm::detail
