// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Values that a declared field cannot have.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <dovetail/core/ranges.hpp>

namespace outside {

/// NaN, both infinities, and the next number beyond each end of the field's range.
inline std::vector<double> of(dovetail::detail::field_base const& f) {
  auto const& r = f.range();
  std::vector<double> all;
  bool const low = r.low > std::numeric_limits<double>::lowest(), high = r.high < std::numeric_limits<double>::max();
  if (f.whole()) {
    if (low && r.low > 0)
      all.push_back(r.above ? r.low : r.low - 1);
    else if (low && !f.without_sign())
      all.push_back(r.low - 1);
    if (high) all.push_back(r.below ? r.high : r.high + std::max(1.0, 0x1p-52 * r.high));
    return all;
  }
  double const infinity = std::numeric_limits<double>::infinity();
  all = {std::numeric_limits<double>::quiet_NaN(), -infinity};
  if (!r.unbounded) all.push_back(infinity);
  // The fields may be floats: the next of those.
  auto const beyond = [](double end, double towards) {
    return static_cast<double>(std::nextafter(static_cast<float>(end), static_cast<float>(towards)));
  };
  if (low) {
    all.push_back(r.above ? r.low : beyond(r.low, -3e38));
    all.push_back(r.low - 1);
  }
  if (high) {
    all.push_back(r.below ? r.high : beyond(r.high, 3e38));
    all.push_back(r.high + std::max(1.0, std::abs(r.high)));
  }
  return all;
}

}  // namespace outside
