// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Adam's moments; u <- (c0 u + c1 m) / (sqrt(v^) + epsilon) with mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), M_t the
/// product of mu_1 to mu_t, c0 = (1 - mu_t) / (1 - M_t), c1 = mu_(t+1) / (1 - M_(t+1)) (Dozat, Incorporating Nesterov
/// Momentum into Adam, 2016, with PyTorch's schedule).
struct scale_by_nadam {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_nadam", field{"beta1", &scale_by_nadam::beta1, ranges::share},
                  field{"beta2", &scale_by_nadam::beta2, ranges::share},
                  field{"epsilon", &scale_by_nadam::epsilon, ranges::not_negative},
                  field{"momentum_decay", &scale_by_nadam::momentum_decay, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float gradient_weight = 0, momentum_weight = 0, bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (gradient_weight * u + momentum_weight * m) / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    auto const shares = detail::nesterov_shares(beta1, momentum_decay, t);
    return {detail::moments_of(beta1, beta2), shares.gradient_weight, shares.momentum_weight,
            detail::root_correction(beta2, t), detail::root_epsilon(epsilon)};
  }
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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_nadam{beta1, beta2, epsilon, momentum_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
