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

/// m <- b1 m + (1 - b1) u; s <- b2 s + (1 - b2)(u - m)^2 + epsilon; u <- m^ / (sqrt(s / (1 - b2^t)) + epsilon) (Zhuang
/// et al., AdaBelief Optimizer, NeurIPS 2020, algorithm 2).
struct scale_by_adabelief {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;
  static constexpr auto describe() {
    return policy{"scale_by_adabelief", field{"beta1", &scale_by_adabelief::beta1, ranges::share},
                  field{"beta2", &scale_by_adabelief::beta2, ranges::share},
                  field{"epsilon", &scale_by_adabelief::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_var"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, epsilon = 0, bias_correction1 = 0,
          bias_correction2 = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& s) const {
      m = beta1 * m + one_minus_beta1 * u;
      T const surprise = u - m;
      s = beta2 * s + one_minus_beta2 * surprise * surprise + epsilon;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T s) const {
      return bias_correction1 * m / (bias_correction2 * simd::sqrt(s) + least);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            epsilon,
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adabelief{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
