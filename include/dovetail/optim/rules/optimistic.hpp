// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

namespace dovetail::optim {

/// Optimistic gradient descent (Mokhtari et al., AISTATS 2020): SGD that expects the last change of the gradient to
/// come again. 1 pass, 20 bytes.
struct optimistic_sgd {
  schedule lr = 1e-3f;
  float alpha = 1;  ///< weight of the gradient
  float beta = 1;   ///< weight of its change since the step before
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"optimistic_sgd", field{"lr", &optimistic_sgd::lr},
                  field{"alpha", &optimistic_sgd::alpha, ranges::finite},
                  field{"beta", &optimistic_sgd::beta, ranges::finite},
                  field{"weight_decay", &optimistic_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, extrapolate_from_past, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, extrapolate_from_past{alpha, beta}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Optimistic Adam (Daskalakis et al., Training GANs with Optimism, ICLR 2018, algorithm 1): Adam's direction and its
/// last change, twice the one minus the one before. 1 pass, 36 bytes.
struct optimistic_adam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float optimism = 1;  ///< weight of the change of the direction
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"optimistic_adam",
                  field{"lr", &optimistic_adam::lr},
                  field{"beta1", &optimistic_adam::beta1, ranges::share},
                  field{"beta2", &optimistic_adam::beta2, ranges::share},
                  field{"epsilon", &optimistic_adam::epsilon, ranges::not_negative},
                  field{"optimism", &optimistic_adam::optimism, ranges::finite},
                  field{"weight_decay", &optimistic_adam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adam, extrapolate_from_past, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon}, extrapolate_from_past{1, optimism},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
