// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/curvature.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules that divide by an estimate of the Hessian's diagonal, which observe_curvature gives them every few steps.

namespace dovetail::optim {

/// AdaHessian (Yao et al., AAAI 2021): Adam with the Hessian's diagonal, from Hutchinson's estimate, in place of the
/// gradient; weight decay is decoupled. Until a diagonal is observed, SGD with momentum. 1 pass, 32 bytes.
///
///     optim::hutchinson_diagonal(product, {.seed = 1, .step = step}, estimate);
///     optim::observe_curvature(rule, parameters, state, estimate);
struct adahessian {
  schedule lr = 0.15f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-4f;
  float weight_decay = 0;
  spatial average = spatial::kernel;  ///< of the diagonal
  float power = 1;  ///< of the diagonal's root mean square, the paper's k, above 0: the less, the nearer to momentum
  static constexpr auto describe() {
    return policy{"adahessian",
                  field{"lr", &adahessian::lr},
                  field{"beta1", &adahessian::beta1, ranges::share},
                  field{"beta2", &adahessian::beta2, ranges::share},
                  field{"epsilon", &adahessian::epsilon, ranges::not_negative},
                  field{"weight_decay", &adahessian::weight_decay, ranges::not_negative},
                  field{"average", &adahessian::average},
                  field{"power", &adahessian::power, ranges::positive}};
  }

  using rule = chain<scale_by_adahessian, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adahessian{beta1, beta2, epsilon, average, power}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Sophia (Liu et al., ICLR 2024): momentum over the moving average of the Hessian's diagonal, clipped; weight decay is
/// decoupled. With Hutchinson's estimate it is Sophia-H, for which the paper takes gamma = 0.01; with
/// Gauss-Newton-Bartlett's (bartlett_diagonal) Sophia-G, gamma = 0.05; an observation every 10 steps. Without one, the
/// sign of the momentum. 1 pass, 24 bytes.
struct sophia {
  schedule lr = 1e-3f;
  float beta1 = 0.96f, beta2 = 0.99f;
  float gamma = 0.05f;     ///< share of the curvature that a step is divided by: how much of it is clipped
  float epsilon = 1e-12f;  ///< smallest curvature that is divided by
  float clipping = 1;      ///< rho: the longest step of one weight, before the rate
  float weight_decay = 0.1f;
  static constexpr auto describe() {
    return policy{"sophia",
                  field{"lr", &sophia::lr},
                  field{"beta1", &sophia::beta1, ranges::share},
                  field{"beta2", &sophia::beta2, ranges::share},
                  field{"gamma", &sophia::gamma, ranges::not_negative},
                  field{"epsilon", &sophia::epsilon, ranges::not_negative},
                  field{"clipping", &sophia::clipping, ranges::positive},
                  field{"weight_decay", &sophia::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sophia, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_sophia{beta1, beta2, gamma, epsilon, clipping}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
