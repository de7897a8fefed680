// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/adaptive.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules that scale each weight's step by its gradients of before.

namespace dovetail::optim {

/// AdaGrad (Duchi et al., JMLR 2011), gradients over the root of the sum of all their squares so far:
/// s <- s + g'^2, w <- w - lr g' / (sqrt(s) + epsilon), g' = g + weight_decay w. PyTorch's lr_decay is the schedule
/// inverse_time. 1 pass, 20 bytes.
struct adagrad {
  schedule lr = 1e-2f;
  float initial_accumulator = 0;  ///< the sum before the first step
  float epsilon = 1e-10f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adagrad", field{"lr", &adagrad::lr},
                  field{"initial_accumulator", &adagrad::initial_accumulator, ranges::not_negative},
                  field{"epsilon", &adagrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &adagrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adagrad, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adagrad{initial_accumulator, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaDelta (Zeiler, 2012): steps in the units of the weights. 1 pass, 28 bytes.
struct adadelta {
  schedule lr = 1;
  float rho = 0.9f;       ///< share of both averages that a step keeps
  float epsilon = 1e-6f;  ///< added to both averages under their roots
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adadelta", field{"lr", &adadelta::lr}, field{"rho", &adadelta::rho, ranges::share},
                  field{"epsilon", &adadelta::epsilon, ranges::not_negative},
                  field{"weight_decay", &adadelta::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adadelta, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adadelta{rho, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012), gradients over the root of an average of their squares:
/// v <- alpha v + (1 - alpha) g'^2, w <- w - lr g' / (sqrt(v) + epsilon), g' = g + weight_decay w. 1 pass, 20 bytes.
struct rmsprop {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of the average of squares that a step keeps
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop", field{"lr", &rmsprop::lr}, field{"alpha", &rmsprop::alpha, ranges::share},
                  field{"epsilon", &rmsprop::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_rms, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012) with momentum behind it:
/// v <- alpha v + (1 - alpha) g'^2, b <- momentum b + g' / (sqrt(v) + epsilon), w <- w - lr b, g' = g + weight_decay w.
/// 1 pass, 28 bytes.
struct rmsprop_momentum {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of the average of squares that a step keeps
  float momentum = 0.9f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop_momentum",
                  field{"lr", &rmsprop_momentum::lr},
                  field{"alpha", &rmsprop_momentum::alpha, ranges::share},
                  field{"momentum", &rmsprop_momentum::momentum, ranges::share},
                  field{"epsilon", &rmsprop_momentum::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop_momentum::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_rms, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Centred RMSprop (Graves, 2013, equations 38 to 45): divides by the square root of v - a^2, a the running mean of
/// gradients, with momentum behind it. 1 pass, 36 bytes.
struct rmsprop_centred {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of both averages that a step keeps
  float momentum = 0;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop_centred",
                  field{"lr", &rmsprop_centred::lr},
                  field{"alpha", &rmsprop_centred::alpha, ranges::share},
                  field{"momentum", &rmsprop_centred::momentum, ranges::share},
                  field{"epsilon", &rmsprop_centred::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop_centred::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_centred_rms, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_centred_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Rprop (Riedmiller & Braun, 1993; the variant that forgets a gradient whose sign has turned, as in PyTorch): each
/// weight has a step of its own, which grows while the gradient keeps its sign. For full batches. `lr` scales all
/// steps. 1 pass, 28 bytes.
struct rprop {
  float initial_step = 1e-2f;                      ///< of every weight, in units of the weights
  float shrink = 0.5f;                             ///< factor of a step when the sign of the gradient has turned
  float grow = 1.2f;                               ///< factor of a step when it has stayed
  float smallest_step = 1e-6f, largest_step = 50;  ///< bounds of every step
  schedule lr = 1;                                 ///< factor of all steps
  static constexpr auto describe() {
    return policy{"rprop",
                  field{"initial_step", &rprop::initial_step, ranges::positive},
                  field{"shrink", &rprop::shrink, ranges::positive_unit},
                  field{"grow", &rprop::grow, ranges::count},
                  field{"smallest_step", &rprop::smallest_step, ranges::not_negative},
                  field{"largest_step", &rprop::largest_step, ranges::positive},
                  field{"lr", &rprop::lr}};
  }

  using rule = chain<scale_by_rprop, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_rprop{initial_step, shrink, grow, smallest_step, largest_step}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SMORMS3 (Funk, 2015): RMSprop whose averages are as long as gradients agree, with steps no longer than their signal
/// is worth. Weight decay is coupled. 1 pass, 36 bytes.
struct smorms3 {
  float lr = 1e-3f;  ///< the largest rate; a number, no schedule: it is compared with
  float epsilon = 1e-16f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"smorms3", field{"lr", &smorms3::lr, ranges::not_negative},
                  field{"epsilon", &smorms3::epsilon, ranges::not_negative},
                  field{"weight_decay", &smorms3::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, descend_by_smorms3>;
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, descend_by_smorms3{lr, epsilon}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
