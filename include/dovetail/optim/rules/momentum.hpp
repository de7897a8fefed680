// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/local_entropy.hpp>
#include <dovetail/optim/directions/momentum.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// SGD with other memories than Polyak's and Nesterov's.

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
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, extrapolate_from_past{alpha, beta}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Demon (Chen et al., ICASSP 2022): SGD whose momentum falls to 0 with the end of the training, so that the rate need
/// not. 1 pass, 20 bytes.
struct demon {
  schedule lr = 1e-3f;
  float momentum = 0.9f;        ///< share of the momentum that the first step keeps
  std::int64_t steps = 100000;  ///< of the whole training
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"demon", field{"lr", &demon::lr}, field{"momentum", &demon::momentum, ranges::share},
                  field{"steps", &demon::steps, ranges::count},
                  field{"weight_decay", &demon::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, accumulate_decaying_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_decaying_momentum{momentum, steps},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Entropy-SGD (Chaudhari et al., ICLR 2017, algorithm 1): SGD about a centre, which moves to the mean of where that
/// has been, so that it ends in wide valleys; averaged_weights gives the centre. Noise is optional: a chain with
/// add_noise in front. 1 pass, 28 bytes.
struct entropy_sgd {
  float lr = 0.1f;             ///< rate of the steps about the centre; a number, no schedule
  float outer_lr = 1;          ///< share of the way to the mean that the centre moves
  std::int64_t steps = 20;     ///< gradients for each move of the centre
  float scope = 1e-4f;         ///< how strongly the first centre holds the weights
  float scope_growth = 1e-3f;  ///< by how much that grows from one centre to the next
  float alpha = 0.75f;         ///< share of the weights that a step brings into the mean
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"entropy_sgd",
                  field{"lr", &entropy_sgd::lr, ranges::not_negative},
                  field{"outer_lr", &entropy_sgd::outer_lr, ranges::not_negative},
                  field{"steps", &entropy_sgd::steps, ranges::count},
                  field{"scope", &entropy_sgd::scope, ranges::not_negative},
                  field{"scope_growth", &entropy_sgd::scope_growth, ranges::not_negative},
                  field{"alpha", &entropy_sgd::alpha, ranges::unit},
                  field{"weight_decay", &entropy_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, ascend_local_entropy>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, ascend_local_entropy{lr, outer_lr, steps, scope, scope_growth, alpha}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
