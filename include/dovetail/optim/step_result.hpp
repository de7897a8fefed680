// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

namespace dovetail::optim {

/// What one step did.
struct step_result {
  bool skipped = false;       ///< a gradient was not finite: weights and state are as before
  std::int64_t step = 0;      ///< steps applied so far, this one included
  float lr = 0;               ///< learning rate of this step
  double gradient_norm = -1;  ///< global L2 norm, when the chain computed it; -1 otherwise
};

namespace detail {
/// Throws argument_error for a rate that is negative or not finite, which would go into every weight.
DOVETAIL_COLD inline void check_rate(float const& rate, std::int64_t step) {
  require(is_finite(rate) && rate >= 0, "optimizer: the learning rate of step ", step, " is ", rate,
          ": nothing was changed; give a finite number that is not negative, or a schedule that returns one");
}
}  // namespace detail

}  // namespace dovetail::optim
