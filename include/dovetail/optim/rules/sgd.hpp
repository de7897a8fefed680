// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

namespace dovetail::optim {

/// Stochastic gradient descent (Robbins & Monro, A Stochastic Approximation Method, 1951), a step against the gradient:
/// w <- w - lr (g + weight_decay w). 1 pass, 12 bytes.
struct sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"sgd", field{"lr", &sgd::lr}, field{"weight_decay", &sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}}; }
  DOVETAIL_OPTIMIZER
};

/// SGD with heavy-ball momentum (Polyak, Some Methods of Speeding up the Convergence of Iteration Methods, 1964):
/// b <- momentum b + (1 - dampening)(g + weight_decay w), w <- w - lr b. 1 pass, 20 bytes.
struct momentum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float dampening = 0;  ///< share of a gradient that does not enter the momentum, from the second step on
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"momentum", field{"lr", &momentum::lr}, field{"momentum", &momentum::momentum, ranges::share},
                  field{"dampening", &momentum::dampening, ranges::unit},
                  field{"weight_decay", &momentum::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_momentum{momentum, dampening}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SGD with Nesterov's momentum (Sutskever et al., On the Importance of Initialization and Momentum in Deep Learning,
/// ICML 2013, section 2, in PyTorch's form): b <- momentum b + g', w <- w - lr (g' + momentum b),
/// g' = g + weight_decay w. 1 pass, 20 bytes.
struct nesterov {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"nesterov", field{"lr", &nesterov::lr}, field{"momentum", &nesterov::momentum, ranges::share},
                  field{"weight_decay", &nesterov::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, accumulate_nesterov_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_nesterov_momentum{momentum}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
