// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/optim/stages.hpp>

// What averages need in double precision, before a step begins.

namespace dovetail::optim {

namespace detail {
/// 1 / (1 - beta^t): what undoes that an average began at 0.
DOVETAIL_HD inline double correction(float beta, std::int64_t t) {
  return 1 / (1 - power(static_cast<double>(beta), t));
}
DOVETAIL_HD inline float root_correction(float beta, std::int64_t t) {
  return static_cast<float>(std::sqrt(correction(beta, t)));
}
DOVETAIL_HD inline float complement(float beta) { return static_cast<float>(1 - static_cast<double>(beta)); }
}  // namespace detail

}  // namespace dovetail::optim
