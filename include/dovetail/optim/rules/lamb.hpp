// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <limits>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/reducing.hpp>

namespace dovetail::optim {

/// LAMB (You et al., ICLR 2020): AdamW's update, scaled per tensor to phi(|w|). 2 passes, 40 bytes.
struct lamb {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;
  float min_norm = 0, max_norm = std::numeric_limits<float>::max();  ///< bounds of phi
  static constexpr auto describe() {
    return policy{"lamb",
                  field{"lr", &lamb::lr},
                  field{"beta1", &lamb::beta1, ranges::share},
                  field{"beta2", &lamb::beta2, ranges::share},
                  field{"epsilon", &lamb::epsilon, ranges::not_negative},
                  field{"weight_decay", &lamb::weight_decay, ranges::not_negative},
                  field{"min_norm", &lamb::min_norm, ranges::not_negative},
                  field{"max_norm", &lamb::max_norm, ranges::positive_or_infinite}};
  }

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_trust_ratio, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_trust_ratio{min_norm, max_norm}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
