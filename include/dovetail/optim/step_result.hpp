// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

namespace dovetail::optim {

/// What one step did.
struct step_result {
  bool skipped = false;       ///< a gradient was not finite: weights and state are as before
  std::int64_t step = 0;      ///< steps applied so far, this one included
  float lr = 0;               ///< learning rate of this step
  double gradient_norm = -1;  ///< global L2 norm, when the chain computed it; -1 otherwise
};

}  // namespace dovetail::optim
