// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

// What repetitions that took turns say about a ratio of times.
namespace bench {

inline double median(std::vector<double> v) {
  if (v.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : 0.5 * (v[v.size() / 2 - 1] + v[v.size() / 2]);
}

/// The median of n paired ratios, and bounds that each hold with 95 % confidence whatever the distribution: the k-th
/// smallest and largest ratio, k the largest number for which fewer than k of n fair coins show heads with at most 5 %
/// (the sign test; 9 pairs: the second smallest, 98 %). With fewer than five pairs there is no such k: the bounds are
/// the smallest and the largest, which mean less.
struct paired_ratio {
  double median = 0, low = 0, high = 0;
  std::size_t pairs = 0;

  /// Repetition i of one and repetition i of the other were measured about the same time, so a machine that is slower
  /// for a while slows both. Repetitions that one of them has more are left out.
  static paired_ratio of(std::vector<double> const& fast, std::vector<double> const& reference) {
    std::vector<double> r(std::min(fast.size(), reference.size()));
    for (std::size_t i = 0; i < r.size(); ++i) r[i] = fast[i] / reference[i];
    std::sort(r.begin(), r.end());
    std::size_t const n = r.size();
    if (n == 0) return {};
    std::size_t k = 1;
    double ways = 1, below = 1, all = 1;  // of k - 1 heads; of fewer than k; 2^n
    for (std::size_t i = 0; i < n; ++i) all *= 2;
    for (;; ++k) {
      ways *= static_cast<double>(n - k + 1) / static_cast<double>(k);
      below += ways;
      if (below > 0.05 * all || 2 * k >= n) break;
    }
    return {bench::median(r), r[k - 1], r[n - k], n};
  }

  enum class verdict { holds, within_noise, does_not };
  /// A claim of "at most" fails where even the lower bound is above it.
  verdict at_most(double bound) const {
    return median <= bound ? verdict::holds : low <= bound ? verdict::within_noise : verdict::does_not;
  }
};
inline char const* name_of(paired_ratio::verdict v) {
  return v == paired_ratio::verdict::holds          ? "holds       "
         : v == paired_ratio::verdict::within_noise ? "within noise"
                                                    : "DOES NOT    ";
}

}  // namespace bench
