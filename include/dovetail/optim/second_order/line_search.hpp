// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>

// How far to go along a direction.

namespace dovetail::optim {

/// A point along a direction: the step, the loss there and the loss's derivative along the direction. A loss or slope
/// that is not finite counts as an infinite loss.
struct line_point {
  double step = 0, value = 0, slope = 0;

  bool finite() const { return is_finite(value) && is_finite(slope); }
};

/// Where a line search ended. `wolfe`: both conditions hold there; otherwise it is the best point that was seen which
/// decreases the loss enough, or, if there was none, the start.
struct line_result {
  line_point at;
  bool wolfe = false;
  int trials = 0;
};

namespace detail {
/// True if two losses are equal as far as sums of doubles tell. Near a minimum they are, long before slopes are: then
/// the slope says what the loss no longer can (the approximate conditions of Hager & Zhang, SIAM J. Optim. 2005,
/// equation 4.1).
inline bool same_loss(double a, double b) { return std::abs(a - b) <= 1e-14 * std::abs(b); }

/// The minimum of the cubic that has the values and slopes of two points (Nocedal & Wright, equation 3.59), the middle
/// between low and high where there is none, and never outside of these.
inline double cubic_minimum(line_point const& a, line_point const& b, double low, double high) {
  double const chord = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step);
  double const square = chord * chord - a.slope * b.slope;
  double const middle = 0.5 * (low + high);
  if (square < 0) return middle;
  double const root = std::copysign(std::sqrt(square), b.step - a.step);
  double const at = b.step - (b.step - a.step) * (b.slope + root - chord) / (b.slope - a.slope + 2 * root);
  return is_finite(at) ? std::clamp(at, low, high) : middle;
}
}  // namespace detail

/// Finds a step that meets the strong Wolfe conditions: f(step) <= f(0) + decrease step f'(0), and |f'(step)| <=
/// curvature |f'(0)| (Nocedal & Wright, Numerical Optimization, 2nd edition, algorithms 3.5 and 3.6), by cubic
/// interpolation that is kept inside the bracket and halves it when it does not shrink by itself. Small `curvature`
/// makes the search exact. Values that are not finite shorten the step. With `to_the_last_digits`, slopes decide where
/// losses differ by less than 1e-14 of themselves: a search on doubles, whose slopes are then still exact.
struct strong_wolfe {
  double decrease = 1e-4;
  double curvature = 0.9;
  int trials = 30;
  double longest = 1e10;  ///< times the first step
  static constexpr auto describe() {
    constexpr bounds inside{.low = 0, .high = 1, .above = true, .below = true};
    return policy{"strong_wolfe", field{"decrease", &strong_wolfe::decrease, inside},
                  field{"curvature", &strong_wolfe::curvature, inside},
                  field{"trials", &strong_wolfe::trials, ranges::count},
                  field{"longest", &strong_wolfe::longest, bounds{.low = 1}}};
  }
  void check() const {
    require(decrease < curvature, "strong_wolfe: decrease is ", decrease, ", curvature ", curvature,
            ": the conditions can be met together only if decrease is smaller");
  }

  /// `at(step)` gives the line_point of a step; `start` is that of step 0, with a negative slope; `first` is tried
  /// first.
  template <class Phi>
  line_result search(Phi&& at, line_point const& start, double first, bool to_the_last_digits = false) const {
    auto const same = [&](double a, double b) { return to_the_last_digits && detail::same_loss(a, b); };
    auto const descends = [&](line_point const& p) {
      return p.value <= start.value + decrease * p.step * start.slope ||
             (same(p.value, start.value) && p.slope <= (2 * decrease - 1) * start.slope);
    };
    auto const above = [&](double a, double b) { return a >= b && !same(a, b); };
    line_result r{start};
    line_point before = start;
    double step = first;
    while (r.trials < trials) {
      auto const now = at(step);
      ++r.trials;
      if (!now.finite() || !descends(now) || (r.trials > 1 && above(now.value, before.value)))
        return zoom(at, start, before, now, r, descends, above);
      if (flat(start, now)) return {now, true, r.trials};
      if (now.slope >= 0) return zoom(at, start, now, before, r, descends, above);
      r.at = now;
      if (step >= longest * first) break;
      double const high = std::min(10 * step, longest * first),
                   low = std::min(step + 0.01 * (step - before.step), high);
      step = detail::cubic_minimum(before, now, low, high);
      // A slope that grows on the way down says nothing of where it ends.
      if (now.slope <= before.slope) step = high;
      before = now;
    }
    return r;
  }

 private:
  bool flat(line_point const& start, line_point const& p) const {
    return std::abs(p.slope) <= -curvature * start.slope;
  }
  /// Between `low`, which descends and whose slope points to `high`, lie points that meet both conditions.
  template <class Phi, class Descends, class Above>
  line_result zoom(Phi&& at, line_point const& start, line_point low, line_point high, line_result r,
                   Descends const& descends, Above const& above) const {
    bool shrunk = true;
    while (r.trials < trials) {
      double const left = std::min(low.step, high.step), right = std::max(low.step, high.step), width = right - left;
      if (!(width > 1e-12 * right)) break;
      double const margin = 1e-3 * width;
      double const step = !high.finite() ? low.step + 0.1 * (high.step - low.step)
                          : shrunk       ? detail::cubic_minimum(low, high, left + margin, right - margin)
                                         : 0.5 * (left + right);
      auto const now = at(step);
      ++r.trials;
      if (!now.finite() || !descends(now) || above(now.value, low.value)) {
        high = now;
      } else {
        if (flat(start, now)) return {now, true, r.trials};
        if (now.slope * (high.step - low.step) >= 0) high = low;
        low = now;
      }
      shrunk = std::abs(high.step - low.step) <= 0.66 * width;
    }
    r.at = low;
    return r;
  }
};

}  // namespace dovetail::optim
