// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <limits>

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
  float min_norm = 0, max_norm = std::numeric_limits<float>::infinity();  ///< bounds of phi

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_trust_ratio, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_trust_ratio{min_norm, max_norm}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
