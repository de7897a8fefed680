// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/averaging.hpp>
#include <dovetail/optim/directions/adaptive.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/stages.hpp>

// Rules that need no schedule.

namespace dovetail::optim {

/// Schedule-free SGD (Defazio et al., NeurIPS 2024): no schedule, but an average of the weights, which averaged_weights
/// gives. 1 pass, 20 bytes.
struct schedule_free_sgd {
  float lr = 1;
  float beta = 0.9f;         ///< where gradients are taken: 0 at z, 1 at the average
  std::int64_t warm_up = 0;  ///< steps over which the rate rises to lr
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"schedule_free_sgd", field{"lr", &schedule_free_sgd::lr, ranges::not_negative},
                  field{"beta", &schedule_free_sgd::beta, ranges::unit},
                  field{"warm_up", &schedule_free_sgd::warm_up, ranges::not_negative},
                  field{"weight_decay", &schedule_free_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, schedule_free>;
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, schedule_free{lr, beta, warm_up}}; }
  DOVETAIL_OPTIMIZER
};

/// Schedule-free AdamW (Defazio et al., NeurIPS 2024, algorithm 1): no schedule, but an average of the weights, which
/// averaged_weights gives. 1 pass, 28 bytes.
struct schedule_free_adamw {
  float lr = 2.5e-3f;
  float beta1 = 0.9f;  ///< where gradients are taken: 0 at z, 1 at the average
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  std::int64_t warm_up = 0;  ///< steps over which the rate rises to lr
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"schedule_free_adamw",
                  field{"lr", &schedule_free_adamw::lr, ranges::not_negative},
                  field{"beta1", &schedule_free_adamw::beta1, ranges::unit},
                  field{"beta2", &schedule_free_adamw::beta2, ranges::share},
                  field{"epsilon", &schedule_free_adamw::epsilon, ranges::not_negative},
                  field{"warm_up", &schedule_free_adamw::warm_up, ranges::not_negative},
                  field{"weight_decay", &schedule_free_adamw::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_corrected_rms, add_decayed_weights, schedule_free>;
  constexpr rule stages() const {
    return {scale_by_corrected_rms{beta2, epsilon}, add_decayed_weights{weight_decay},
            schedule_free{lr, beta1, warm_up}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
