// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/online.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules from online learning: sparse weights, and rates that nobody has to set.

namespace dovetail::optim {

/// FTRL-Proximal (McMahan et al., KDD 2013, algorithm 1), AdaGrad's steps with weights that stay 0 until they are worth
/// their cost. Without l1 and l2 it is AdaGrad with epsilon = beta. 1 pass, 28 bytes.
struct ftrl {
  float lr = 0.1f;  ///< alpha of the paper; a number, no schedule
  float beta = 1;   ///< in units of the gradient: the larger, the smaller the first steps
  float l1 = 0;     ///< the sum of gradients, less what steps have used up, that a weight needs to leave 0
  float l2 = 0;     ///< strength of the pull to 0, in units of gradient per weight
  static constexpr auto describe() {
    return policy{"ftrl", field{"lr", &ftrl::lr, ranges::not_negative}, field{"beta", &ftrl::beta, ranges::positive},
                  field{"l1", &ftrl::l1, ranges::not_negative}, field{"l2", &ftrl::l2, ranges::not_negative}};
  }

  using rule = chain<follow_regularized_leader>;
  constexpr rule stages() const { return {follow_regularized_leader{lr, beta, l1, l2}}; }
  DOVETAIL_OPTIMIZER
};

/// WNGrad (Wu, Ward & Bottou, 2018): one rate for all weights, which falls with the squares of the gradients' norms.
/// 2 passes, 20 bytes.
struct wngrad {
  schedule lr = 1;
  float initial = 1;  ///< inverse of the largest rate, which no step reaches
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"wngrad", field{"lr", &wngrad::lr}, field{"initial", &wngrad::initial, ranges::positive},
                  field{"weight_decay", &wngrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_wngrad, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_wngrad{initial}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaGrad-Norm (Ward, Wu & Bottou, ICML 2019, algorithm 1): one rate for all weights, over the root of the sum of all
/// squared gradients' norms. 2 passes, 20 bytes.
struct adagrad_norm {
  schedule lr = 1;
  float initial = 1e-2f;  ///< b_0 of the paper, in units of the gradient's norm
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adagrad_norm", field{"lr", &adagrad_norm::lr},
                  field{"initial", &adagrad_norm::initial, ranges::not_negative},
                  field{"weight_decay", &adagrad_norm::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adagrad_norm, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adagrad_norm{initial}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// DoG, distance over gradients (Ivgi, Hinder & Carmon, ICML 2023): SGD whose rate is how far the weights have come
/// over the root of the sum of squared gradients' norms; its authors use an average of the weights. 2 passes, 28 bytes.
struct dog {
  schedule lr = 1;        ///< factor of the rate that is found
  float reach = 1e-6f;    ///< length of the first step, as a share of 1 + |w|
  float epsilon = 1e-8f;  ///< added under the root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"dog", field{"lr", &dog::lr}, field{"reach", &dog::reach, ranges::positive},
                  field{"epsilon", &dog::epsilon, ranges::not_negative},
                  field{"weight_decay", &dog::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_dog, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_dog{reach, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// DoWG, distance over weighted gradients (Khaled, Mishchenko & Jin, NeurIPS 2023, algorithm 1): DoG with later
/// gradients, taken farther away, counting more. 2 passes, 28 bytes.
struct dowg {
  schedule lr = 1;               ///< factor of the rate that is found
  float initial_square = 1e-4f;  ///< square of the first guess of the distance
  float epsilon = 1e-4f;         ///< added to the root in the denominator
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"dowg", field{"lr", &dowg::lr}, field{"initial_square", &dowg::initial_square, ranges::positive},
                  field{"epsilon", &dowg::epsilon, ranges::not_negative},
                  field{"weight_decay", &dowg::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_dowg, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_dowg{initial_square, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// D-Adaptation of AdamW (Defazio & Mishchenko, ICML 2023): AdamW that finds its rate d from how far gradients have
/// agreed, the forerunner of Prodigy. 2 passes, 48 bytes.
struct dadapt_adamw {
  schedule lr = 1;  ///< factor of the rate that is found
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;   ///< decoupled: a step also takes lr d weight_decay of each weight away
  float initial_d = 1e-6f;  ///< the rate of the first step; it only grows
  static constexpr auto describe() {
    return policy{"dadapt_adamw",
                  field{"lr", &dadapt_adamw::lr},
                  field{"beta1", &dadapt_adamw::beta1, ranges::share},
                  field{"beta2", &dadapt_adamw::beta2, ranges::share},
                  field{"epsilon", &dadapt_adamw::epsilon, ranges::not_negative},
                  field{"weight_decay", &dadapt_adamw::weight_decay, ranges::not_negative},
                  field{"initial_d", &dadapt_adamw::initial_d, ranges::positive}};
  }

  using rule = chain<scale_by_dadapt_adam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_dadapt_adam{beta1, beta2, epsilon, weight_decay, initial_d}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// COCOB (Orabona & Tommasi, NeurIPS 2017, algorithm 2): each weight bets on its gradient's sign with what it has won
/// so far; there is no rate. 1 pass, 52 bytes.
struct cocob {
  float alpha = 100;      ///< the larger, the smaller the bets of the first steps
  float epsilon = 1e-8f;  ///< what counts as a gradient before there is one
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"cocob", field{"alpha", &cocob::alpha, ranges::positive},
                  field{"epsilon", &cocob::epsilon, ranges::not_negative},
                  field{"weight_decay", &cocob::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, bet_coins>;
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, bet_coins{alpha, epsilon}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
