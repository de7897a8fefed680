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

/// w <- w - lr (g + weight_decay w). 1 pass, 12 bytes.
struct sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}}; }
  DOVETAIL_OPTIMIZER
};

/// SGD with heavy-ball momentum: b <- momentum b + (1 - dampening)(g + weight_decay w), w <- w - lr b. 1 pass, 20
/// bytes.
struct momentum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float dampening = 0;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_momentum{momentum, dampening}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SGD with Nesterov's momentum: b <- momentum b + g', w <- w - lr (g' + momentum b), g' = g + weight_decay w.
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

/// Adam (Kingma & Ba, ICLR 2015), weight decay coupled as L2 regularisation. 1 pass, 28 bytes.
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

/// LARS (You et al., 2017): r = trust_coefficient |w| / (|g| + weight_decay |w|) per tensor,
/// b <- momentum b + r (g + weight_decay w), w <- w - lr b. The rate multiplies behind the momentum, as in PyTorch's
/// SGD: the paper's update when the rate is constant. 2 passes, 28 bytes.
struct lars {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float weight_decay = 5e-4f;
  float trust_coefficient = 1e-3f;
  float epsilon = 0;

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
