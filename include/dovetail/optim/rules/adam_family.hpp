// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/adam_averages.hpp>
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Adam's relatives.

namespace dovetail::optim {

/// AdaMax (Kingma & Ba, ICLR 2015, algorithm 2): Adam with the infinity norm. 1 pass, 28 bytes.
struct adamax {
  schedule lr = 2e-3f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;   ///< share of the largest |g| that a step keeps
  float epsilon = 1e-8f;  ///< added to |g|
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adamax",
                  field{"lr", &adamax::lr},
                  field{"beta1", &adamax::beta1, ranges::share},
                  field{"beta2", &adamax::beta2, ranges::share},
                  field{"epsilon", &adamax::epsilon, ranges::not_negative},
                  field{"weight_decay", &adamax::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adamax, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adamax{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// NAdam (Dozat, ICLR workshop 2016): Adam with Nesterov's momentum, whose strength grows with the steps. 1 pass, 28
/// bytes.
struct nadam {
  schedule lr = 2e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;  ///< how fast the momentum grows to beta1
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"nadam",
                  field{"lr", &nadam::lr},
                  field{"beta1", &nadam::beta1, ranges::share},
                  field{"beta2", &nadam::beta2, ranges::share},
                  field{"epsilon", &nadam::epsilon, ranges::not_negative},
                  field{"momentum_decay", &nadam::momentum_decay, ranges::not_negative},
                  field{"weight_decay", &nadam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_nadam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_nadam{beta1, beta2, epsilon, momentum_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AMSGrad (Reddi et al., ICLR 2018): Adam with the largest second moment so far. 1 pass, 36 bytes.
struct amsgrad {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"amsgrad",
                  field{"lr", &amsgrad::lr},
                  field{"beta1", &amsgrad::beta1, ranges::share},
                  field{"beta2", &amsgrad::beta2, ranges::share},
                  field{"epsilon", &amsgrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &amsgrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_amsgrad, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_amsgrad{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RAdam (Liu et al., ICLR 2020): Adam that waits until its second moment can be trusted. 1 pass, 28 bytes.
struct radam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"radam",
                  field{"lr", &radam::lr},
                  field{"beta1", &radam::beta1, ranges::share},
                  field{"beta2", &radam::beta2, ranges::share},
                  field{"epsilon", &radam::epsilon, ranges::not_negative},
                  field{"weight_decay", &radam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_radam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_radam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaBound (Luo et al., ICLR 2019): Adam whose rates per weight are held between bounds that close around
/// final_ratio lr, so that it ends as SGD. 1 pass, 28 bytes.
struct adabound {
  schedule lr = 1e-3f;
  float final_ratio = 100;  ///< the SGD rate at the end, as a multiple of lr
  float gamma = 1e-3f;      ///< how fast the bounds close
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adabound",
                  field{"lr", &adabound::lr},
                  field{"final_ratio", &adabound::final_ratio, ranges::positive},
                  field{"gamma", &adabound::gamma, ranges::positive},
                  field{"beta1", &adabound::beta1, ranges::share},
                  field{"beta2", &adabound::beta2, ranges::share},
                  field{"epsilon", &adabound::epsilon, ranges::not_negative},
                  field{"weight_decay", &adabound::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adabound, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adabound{beta1, beta2, epsilon, final_ratio, gamma},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaBelief (Zhuang et al., NeurIPS 2020): Adam with the variance of gradients about their mean. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct adabelief {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;  ///< added to the variance in every step, and to its root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adabelief",
                  field{"lr", &adabelief::lr},
                  field{"beta1", &adabelief::beta1, ranges::share},
                  field{"beta2", &adabelief::beta2, ranges::share},
                  field{"epsilon", &adabelief::epsilon, ranges::not_negative},
                  field{"weight_decay", &adabelief::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adabelief, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adabelief{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Yogi (Zaheer et al., NeurIPS 2018): Adam whose second moment moves by at most (1 - beta2) g^2 a step. Weight decay
/// is decoupled. 1 pass, 28 bytes.
struct yogi {
  schedule lr = 1e-2f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-3f;
  float initial_accumulator = 1e-6f;  ///< the second moment before the first step
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"yogi",
                  field{"lr", &yogi::lr},
                  field{"beta1", &yogi::beta1, ranges::share},
                  field{"beta2", &yogi::beta2, ranges::share},
                  field{"epsilon", &yogi::epsilon, ranges::not_negative},
                  field{"initial_accumulator", &yogi::initial_accumulator, ranges::not_negative},
                  field{"weight_decay", &yogi::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_yogi, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_yogi{beta1, beta2, epsilon, initial_accumulator}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// QHAdam (Ma & Yarats, ICLR 2019, section 4): Adam with quasi-hyperbolic averages of both moments. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct qhadam {
  schedule lr = 1e-3f;
  float nu1 = 0.7f;  ///< share of the average, rather than of this gradient, in the numerator
  float nu2 = 1;     ///< share of the average, rather than of this square, in the denominator
  float beta1 = 0.995f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"qhadam",
                  field{"lr", &qhadam::lr},
                  field{"nu1", &qhadam::nu1, ranges::unit},
                  field{"nu2", &qhadam::nu2, ranges::unit},
                  field{"beta1", &qhadam::beta1, ranges::share},
                  field{"beta2", &qhadam::beta2, ranges::share},
                  field{"epsilon", &qhadam::epsilon, ranges::not_negative},
                  field{"weight_decay", &qhadam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_qhadam, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_qhadam{nu1, nu2, beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdEMAMix (Pagliardini et al., ICLR 2025): AdamW with a second, slow average of gradients. 1 pass, 36 bytes.
struct ademamix {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0.9999f;     ///< share of the slow average that a step keeps
  float alpha = 5;           ///< weight of the slow average
  std::int64_t warm_up = 0;  ///< steps over which alpha and beta3 reach their values; 0: at once
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"ademamix",
                  field{"lr", &ademamix::lr},
                  field{"beta1", &ademamix::beta1, ranges::share},
                  field{"beta2", &ademamix::beta2, ranges::share},
                  field{"beta3", &ademamix::beta3, ranges::share},
                  field{"alpha", &ademamix::alpha, ranges::not_negative},
                  field{"warm_up", &ademamix::warm_up, ranges::not_negative},
                  field{"epsilon", &ademamix::epsilon, ranges::not_negative},
                  field{"weight_decay", &ademamix::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_ademamix, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_ademamix{beta1, beta2, beta3, alpha, warm_up, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// ADOPT (Taniguchi et al., NeurIPS 2024, algorithm 2, with clipping): Adam that divides by the second moment before
/// this gradient enters it, and so converges with any beta2. The first step only measures. Weight decay is decoupled.
/// 1 pass, 28 bytes.
struct adopt {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.9999f;
  float epsilon = 1e-6f;  ///< the least that a gradient is divided by
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adopt",
                  field{"lr", &adopt::lr},
                  field{"beta1", &adopt::beta1, ranges::share},
                  field{"beta2", &adopt::beta2, ranges::share},
                  field{"epsilon", &adopt::epsilon, ranges::not_negative},
                  field{"weight_decay", &adopt::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adopt, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adopt{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Adan (Xie et al., TPAMI 2024, algorithm 1): moments of the gradient and of its change. The betas are what is kept,
/// as in the authors' program. Weight decay is decoupled. 1 pass, 44 bytes.
struct adan {
  schedule lr = 1e-3f;
  float beta1 = 0.98f;  ///< share of the average of gradients that a step keeps
  float beta2 = 0.92f;  ///< of the average of their changes; also how far the gradient is looked ahead
  float beta3 = 0.99f;  ///< of the average of squares
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adan",
                  field{"lr", &adan::lr},
                  field{"beta1", &adan::beta1, ranges::share},
                  field{"beta2", &adan::beta2, ranges::share},
                  field{"beta3", &adan::beta3, ranges::share},
                  field{"epsilon", &adan::epsilon, ranges::not_negative},
                  field{"weight_decay", &adan::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adan, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adan{beta1, beta2, beta3, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
