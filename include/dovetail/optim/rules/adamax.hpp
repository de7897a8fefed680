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

/// m <- b1 m + (1 - b1) u; n <- max(b2 n, |u| + epsilon); u <- m^ / n (Kingma & Ba, ICLR 2015, algorithm 2).
struct scale_by_adamax {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adamax", field{"beta1", &scale_by_adamax::beta1, ranges::share},
                  field{"beta2", &scale_by_adamax::beta2, ranges::share},
                  field{"epsilon", &scale_by_adamax::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_inf"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, epsilon = 0, bias_correction1 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& n) const {
      m = beta1 * m + one_minus_beta1 * u;
      n = simd::max(beta2 * n, simd::abs(u) + epsilon);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T n) const {
      return bias_correction1 * m / n;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1, detail::complement(beta1), beta2, detail::least_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t))};
  }
};

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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adamax{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
