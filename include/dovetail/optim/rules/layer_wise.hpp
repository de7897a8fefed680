// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <limits>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/layer_wise.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules with a rate per tensor, beside LARS and LAMB, and one that finds its own.

namespace dovetail::optim {

/// NovoGrad (Ginsburg et al., 2019): momentum of gradients that each tensor's own running norm has scaled:
/// m <- b1 m + u / (sqrt(v) + epsilon) + weight_decay w, w <- w - lr m. 2 passes, 24 bytes, and one number per tensor.
struct novograd {
  schedule lr = 1e-2f;
  float beta1 = 0.95f;  ///< share of the momentum that a step keeps
  float beta2 = 0.98f;  ///< share of each tensor's average of squared norms that a step keeps
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"novograd",
                  field{"lr", &novograd::lr},
                  field{"beta1", &novograd::beta1, ranges::share},
                  field{"beta2", &novograd::beta2, ranges::share},
                  field{"epsilon", &novograd::epsilon, ranges::not_negative},
                  field{"weight_decay", &novograd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_layer_rms, add_decayed_weights, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_layer_rms{beta2, epsilon}, add_decayed_weights{weight_decay}, accumulate_momentum{beta1},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// LARC (NVIDIA Apex, 2018): LARS whose rate per tensor never exceeds lr, with momentum. `lr` is one number: the stage
/// compares with it. 2 passes, 28 bytes.
struct larc {
  float lr = 0.1f;  ///< the largest rate; a number, no schedule
  float momentum = 0.9f;
  float weight_decay = 0;           ///< coupled, and part of the trust ratio
  float trust_coefficient = 0.02f;  ///< length of a step below the largest rate, as a share of |w|
  float epsilon = 1e-8f;            ///< added to the denominator of the trust ratio
  static constexpr auto describe() {
    return policy{"larc",
                  field{"lr", &larc::lr, ranges::not_negative},
                  field{"momentum", &larc::momentum, ranges::share},
                  field{"weight_decay", &larc::weight_decay, ranges::not_negative},
                  field{"trust_coefficient", &larc::trust_coefficient, ranges::positive},
                  field{"epsilon", &larc::epsilon, ranges::not_negative}};
  }

  using rule = chain<scale_by_clipped_lars_trust_ratio, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_clipped_lars_trust_ratio{lr, trust_coefficient, weight_decay, epsilon},
            accumulate_momentum{momentum}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// LANS (Zheng et al., 2020): LAMB on normalised gradients, with Nesterov's look ahead. 3 passes, 48 bytes.
struct lans {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;                                        ///< inside both normalised directions
  float min_norm = 0, max_norm = std::numeric_limits<float>::max();  ///< bounds of phi
  static constexpr auto describe() {
    return policy{"lans",
                  field{"lr", &lans::lr},
                  field{"beta1", &lans::beta1, ranges::share},
                  field{"beta2", &lans::beta2, ranges::share},
                  field{"epsilon", &lans::epsilon, ranges::not_negative},
                  field{"weight_decay", &lans::weight_decay, ranges::not_negative},
                  field{"min_norm", &lans::min_norm, ranges::not_negative},
                  field{"max_norm", &lans::max_norm, ranges::positive_or_infinite}};
  }

  using rule = chain<normalize_per_tensor, scale_by_lans, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {normalize_per_tensor{}, scale_by_lans{beta1, beta2, epsilon, weight_decay, min_norm, max_norm},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Prodigy (Mishchenko & Defazio, ICML 2024): AdamW that finds its own rate; `lr` is a factor around it, 1 unless
/// annealed. 2 passes, 56 bytes.
struct prodigy {
  schedule lr = 1;  ///< factor of the rate that it finds
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;        ///< decoupled: a step also takes lr d weight_decay of each weight away
  float initial_d = 1e-6f;       ///< the first rate: small, but not 0
  float coefficient = 1;         ///< what the estimated rate is multiplied by
  bool bias_correction = false;  ///< Adam's corrections, which also slow the first steps down
  static constexpr auto describe() {
    return policy{"prodigy",
                  field{"lr", &prodigy::lr},
                  field{"beta1", &prodigy::beta1, ranges::share},
                  field{"beta2", &prodigy::beta2, ranges::share},
                  field{"epsilon", &prodigy::epsilon, ranges::not_negative},
                  field{"weight_decay", &prodigy::weight_decay, ranges::not_negative},
                  field{"initial_d", &prodigy::initial_d, ranges::positive},
                  field{"coefficient", &prodigy::coefficient, ranges::positive},
                  field{"bias_correction", &prodigy::bias_correction}};
  }

  using rule = chain<scale_by_prodigy, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_prodigy{beta1, beta2, 0, epsilon, weight_decay, initial_d, coefficient, bias_correction},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Fromage (Bernstein et al., NeurIPS 2020, algorithm 1): a step is a share of each tensor's length, and the weights
/// are shrunk by as much as it has made them longer. 2 passes, 20 bytes.
struct fromage {
  float lr = 0.01f;  ///< length of a step, as a share of each tensor's; a number, no schedule
  static constexpr auto describe() { return policy{"fromage", field{"lr", &fromage::lr, ranges::not_negative}}; }

  using rule = chain<descend_by_relative_distance>;
  constexpr rule stages() const { return {descend_by_relative_distance{lr}}; }
  DOVETAIL_OPTIMIZER
};

/// PercentDelta (Abu-El-Haija, 2017): in each tensor, a step changes the weights by the share lr on average. 2 passes,
/// 28 bytes.
struct percent_delta {
  schedule lr = 0.03f;  ///< mean share of a weight that a step without momentum changes
  float momentum = 0.9f;
  float epsilon = 1e-3f;  ///< the smallest |w| that counts, in units of the weights
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"percent_delta", field{"lr", &percent_delta::lr},
                  field{"momentum", &percent_delta::momentum, ranges::share},
                  field{"epsilon", &percent_delta::epsilon, ranges::not_negative},
                  field{"weight_decay", &percent_delta::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_percent_delta, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_percent_delta{epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
