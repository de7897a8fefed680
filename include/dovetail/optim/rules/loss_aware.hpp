// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/loss_aware.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules whose steps depend on the loss: step_options::loss gives it, and train::trainer does so by itself.

namespace dovetail::optim {

/// SGD with Polyak's rate (Loizou et al., Stochastic Polyak Step-size for SGD, AISTATS 2021): each step goes to where
/// the loss would be at its lower bound if it were a plane. Needs step_options::loss. 2 passes, 20 bytes.
struct polyak_sgd {
  schedule lr = 1;        ///< factor of the rate that is found
  float lower_bound = 0;  ///< of the loss
  float largest = 1;      ///< the largest rate, before the factor
  float epsilon = 0;      ///< added to the denominator, in units of a squared gradient
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"polyak_sgd",
                  field{"lr", &polyak_sgd::lr},
                  field{"lower_bound", &polyak_sgd::lower_bound, ranges::finite},
                  field{"largest", &polyak_sgd::largest, ranges::positive},
                  field{"epsilon", &polyak_sgd::epsilon, ranges::not_negative},
                  field{"weight_decay", &polyak_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_polyak, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_polyak{lower_bound, largest, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// MoMo (Schaipp et al., ICML 2024): momentum whose rate is the one that a model of the loss along it asks for, at most
/// lr. Needs step_options::loss. 2 passes, 28 bytes.
struct momo {
  schedule lr = 1;         ///< the largest rate
  float beta = 0.9f;       ///< share of the averages of gradients and losses that a step keeps
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"momo", field{"lr", &momo::lr}, field{"beta", &momo::beta, ranges::share},
                  field{"lower_bound", &momo::lower_bound, ranges::finite},
                  field{"weight_decay", &momo::weight_decay, ranges::not_negative}};
  }

  using rule = chain<descend_by_momo>;
  constexpr rule stages() const { return {descend_by_momo{lr, beta, lower_bound, weight_decay}}; }
  DOVETAIL_OPTIMIZER
};

/// MoMo-Adam (Schaipp et al., ICML 2024): Adam whose rate is the one that a model of the loss along its step asks for,
/// at most lr. Needs step_options::loss. 2 passes, 40 bytes.
struct momo_adam {
  schedule lr = 1e-2f;  ///< the largest rate
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"momo_adam",
                  field{"lr", &momo_adam::lr},
                  field{"beta1", &momo_adam::beta1, ranges::share},
                  field{"beta2", &momo_adam::beta2, ranges::share},
                  field{"epsilon", &momo_adam::epsilon, ranges::not_negative},
                  field{"lower_bound", &momo_adam::lower_bound, ranges::finite},
                  field{"weight_decay", &momo_adam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<descend_by_momo_adam>;
  constexpr rule stages() const { return {descend_by_momo_adam{lr, beta1, beta2, epsilon, lower_bound, weight_decay}}; }
  DOVETAIL_OPTIMIZER
};

/// Eve (Hayashi, Koushik & Neubig, 2016, algorithm 1): Adam with steps that become shorter while the loss changes much.
/// Needs step_options::loss. 2 passes, 40 bytes.
struct eve {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0.999f;  ///< share of the average of changes of the loss that a step keeps
  float epsilon = 1e-8f;
  float clipping = 10;    ///< the largest change that counts, and the inverse of the smallest
  float lower_bound = 0;  ///< of the loss
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"eve",
                  field{"lr", &eve::lr},
                  field{"beta1", &eve::beta1, ranges::share},
                  field{"beta2", &eve::beta2, ranges::share},
                  field{"beta3", &eve::beta3, ranges::share},
                  field{"epsilon", &eve::epsilon, ranges::not_negative},
                  field{"clipping", &eve::clipping, bounds{.low = 1}},
                  field{"lower_bound", &eve::lower_bound, ranges::finite},
                  field{"weight_decay", &eve::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adam, scale_by_loss_change, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon},
            scale_by_loss_change{beta3, clipping, lower_bound}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
