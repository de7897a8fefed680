// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/adam_variants.hpp>
#include <dovetail/optim/directions/momentum.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// More of Adam's relatives.

namespace dovetail::optim {

/// Padam (Chen et al., IJCAI 2020, algorithm 1): AMSGrad with a power of the second moment between SGD's 0 and Adam's
/// 1/2. 1 pass, 36 bytes.
struct padam {
  schedule lr = 0.1f;
  float power = 0.125f;  ///< of the second moment: 1/2 is AMSGrad
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"padam",
                  field{"lr", &padam::lr},
                  field{"power", &padam::power, bounds{.low = 0, .high = 0.5, .above = true}},
                  field{"beta1", &padam::beta1, ranges::share},
                  field{"beta2", &padam::beta2, ranges::share},
                  field{"epsilon", &padam::epsilon, ranges::not_negative},
                  field{"weight_decay", &padam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_padam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_padam{power, beta1, beta2, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AMSBound (Luo et al., ICLR 2019): AdaBound with the largest second moment so far. 1 pass, 36 bytes.
struct amsbound {
  schedule lr = 1e-3f;
  float final_ratio = 100;  ///< the SGD rate at the end, as a multiple of lr
  float gamma = 1e-3f;      ///< how fast the bounds close
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"amsbound",
                  field{"lr", &amsbound::lr},
                  field{"final_ratio", &amsbound::final_ratio, ranges::positive},
                  field{"gamma", &amsbound::gamma, ranges::positive},
                  field{"beta1", &amsbound::beta1, ranges::share},
                  field{"beta2", &amsbound::beta2, ranges::share},
                  field{"epsilon", &amsbound::epsilon, ranges::not_negative},
                  field{"weight_decay", &amsbound::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_amsbound, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_amsbound{beta1, beta2, epsilon, final_ratio, gamma},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// NadaMax (Dozat, ICLR workshop 2016): AdaMax with Nesterov's momentum, whose strength grows with the steps. 1 pass,
/// 28 bytes.
struct nadamax {
  schedule lr = 1e-3f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;  ///< share of the largest |g| that a step keeps
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;  ///< how fast the momentum grows to beta1
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"nadamax",
                  field{"lr", &nadamax::lr},
                  field{"beta1", &nadamax::beta1, ranges::share},
                  field{"beta2", &nadamax::beta2, ranges::share},
                  field{"epsilon", &nadamax::epsilon, ranges::not_negative},
                  field{"momentum_decay", &nadamax::momentum_decay, ranges::not_negative},
                  field{"weight_decay", &nadamax::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_nadamax, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_nadamax{beta1, beta2, epsilon, momentum_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Simplified AdEMAMix (Morwani et al., 2025): this gradient beside one slow sum of gradients, over the second moment.
/// Weight decay is decoupled. 1 pass, 28 bytes.
struct simplified_ademamix {
  schedule lr = 1e-4f;
  float beta1 = 0.99f;  ///< share of the sum of gradients that a step keeps; a step is up to 1 / (1 - beta1) of Adam's
  float beta2 = 0.95f;
  float alpha = 0;  ///< weight of this gradient beside the sum
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"simplified_ademamix",
                  field{"lr", &simplified_ademamix::lr},
                  field{"beta1", &simplified_ademamix::beta1, ranges::share},
                  field{"beta2", &simplified_ademamix::beta2, ranges::share},
                  field{"alpha", &simplified_ademamix::alpha, ranges::not_negative},
                  field{"epsilon", &simplified_ademamix::epsilon, ranges::not_negative},
                  field{"weight_decay", &simplified_ademamix::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_simplified_ademamix, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_simplified_ademamix{beta1, beta2, alpha, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// ACProp (Zhuang et al., NeurIPS 2021): gradients over the variance that was known before they came. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct acprop {
  schedule lr = 1e-3f;
  float beta1 = 0.9f;      ///< share of the mean, about which the variance is taken, that a step keeps
  float beta2 = 0.999f;    ///< share of the variance that a step keeps
  float epsilon = 1e-16f;  ///< added to the variance in every step, and to its root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"acprop",
                  field{"lr", &acprop::lr},
                  field{"beta1", &acprop::beta1, ranges::share},
                  field{"beta2", &acprop::beta2, ranges::share},
                  field{"epsilon", &acprop::epsilon, ranges::not_negative},
                  field{"weight_decay", &acprop::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_acprop, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_acprop{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
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
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon}, extrapolate_from_past{1, optimism},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// FTML (Zheng & Kwok, ICML 2017), the weights that minimise a fading sum of all steps' models: RMSProp's step, with a
/// rate that falls from lr to (1 - beta1) lr over the first steps. 1 pass, 20 bytes.
struct ftml {
  schedule lr = 2.5e-3f;
  float beta1 = 0.6f;  ///< share of the models of before that a step keeps
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"ftml",
                  field{"lr", &ftml::lr},
                  field{"beta1", &ftml::beta1, ranges::share},
                  field{"beta2", &ftml::beta2, ranges::share},
                  field{"epsilon", &ftml::epsilon, ranges::not_negative},
                  field{"weight_decay", &ftml::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_ftml, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_ftml{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SWATS (Keskar & Socher, 2017, algorithm 1): Adam, until the rate with which SGD would take Adam's steps has settled,
/// and SGD with that rate from then on. 2 passes, 40 bytes.
struct swats {
  float lr = 1e-3f;  ///< of Adam's steps; a number, no schedule: SGD's rate is measured with it
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-9f;
  float tolerance = 1e-9f;  ///< how near SGD's rate must be to its average for the switch
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"swats",
                  field{"lr", &swats::lr, ranges::not_negative},
                  field{"beta1", &swats::beta1, ranges::share},
                  field{"beta2", &swats::beta2, ranges::share},
                  field{"epsilon", &swats::epsilon, ranges::not_negative},
                  field{"tolerance", &swats::tolerance, ranges::positive},
                  field{"weight_decay", &swats::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, switch_adam_to_sgd>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, switch_adam_to_sgd{lr, beta1, beta2, epsilon, tolerance}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
