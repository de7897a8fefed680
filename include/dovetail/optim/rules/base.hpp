// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <limits>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// SGD and Adam, and their layer-wise forms.

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
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}}; }
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
  constexpr rule stages() const {
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
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_nesterov_momentum{momentum}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Adam (Kingma & Ba, ICLR 2015): an average of gradients over the root of an average of their squares. Weight decay is
/// coupled, as L2 regularisation. 1 pass, 28 bytes.
struct adam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adam",
                  field{"lr", &adam::lr},
                  field{"beta1", &adam::beta1, ranges::share},
                  field{"beta2", &adam::beta2, ranges::share},
                  field{"epsilon", &adam::epsilon, ranges::not_negative},
                  field{"weight_decay", &adam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdamW (Loshchilov & Hutter, ICLR 2019): Adam with decoupled weight decay, scaled by lr as in PyTorch. 1 pass, 28
/// bytes.
struct adamw {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;
  static constexpr auto describe() {
    return policy{"adamw",
                  field{"lr", &adamw::lr},
                  field{"beta1", &adamw::beta1, ranges::share},
                  field{"beta2", &adamw::beta2, ranges::share},
                  field{"epsilon", &adamw::epsilon, ranges::not_negative},
                  field{"weight_decay", &adamw::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// LARS (You et al., 2017), momentum with a rate for each tensor: r = trust_coefficient |w| / (|g| + weight_decay |w|),
/// b <- momentum b + r (g + weight_decay w), w <- w - lr b. The rate multiplies behind the momentum, as in
/// PyTorch's SGD: the paper's update when the rate is constant. 2 passes, 28 bytes.
struct lars {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float weight_decay = 5e-4f;       ///< coupled, and part of the trust ratio
  float trust_coefficient = 1e-3f;  ///< length of a step with lr 1, as a share of |w|
  float epsilon = 0;                ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"lars",
                  field{"lr", &lars::lr},
                  field{"momentum", &lars::momentum, ranges::share},
                  field{"weight_decay", &lars::weight_decay, ranges::not_negative},
                  field{"trust_coefficient", &lars::trust_coefficient, ranges::positive},
                  field{"epsilon", &lars::epsilon, ranges::not_negative}};
  }

  using rule = chain<scale_by_lars_trust_ratio, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_lars_trust_ratio{trust_coefficient, weight_decay, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

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
  constexpr rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_trust_ratio{min_norm, max_norm}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
