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

/// u <- u / (sqrt(s^) + epsilon) with the s of before, in the first step u / (1 + epsilon); m <- b1 m + (1 - b1) u;
/// s <- b2 s + (1 - b2)(u - m)^2 + epsilon (Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive
/// Gradient Methods, NeurIPS 2021).
struct scale_by_acprop {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;
  static constexpr auto describe() {
    return policy{"scale_by_acprop", field{"beta1", &scale_by_acprop::beta1, ranges::share},
                  field{"beta2", &scale_by_acprop::beta2, ranges::share},
                  field{"epsilon", &scale_by_acprop::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_var"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, epsilon = 0, bias_correction2 = 0, first = 0,
          least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& m, T& s) const {
      T const scaled = u / (first + bias_correction2 * simd::sqrt(s) + least);
      m = beta1 * m + one_minus_beta1 * u;
      T const surprise = u - m;
      s = beta2 * s + one_minus_beta2 * surprise * surprise + epsilon;
      return scaled;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            epsilon,
            t == 1 ? 0.0f : detail::root_correction(beta2, t - 1),
            t == 1 ? 1.0f : 0.0f,
            detail::root_epsilon(epsilon)};
  }
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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_acprop{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
