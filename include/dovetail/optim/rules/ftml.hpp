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

/// v <- b2 v + (1 - b2) u^2; u <- (1 - b1) / (1 - b1^t) u / (sqrt(v^) + epsilon) (Zheng & Kwok, Follow the Moving
/// Leader in Deep Learning, ICML 2017). The paper's leader, w = -z / d with z <- b1 z + (1 - b1) u - (d - b1 d') w and
/// d = (1 - b1^t) / lr (sqrt(v^) + epsilon), d' the d of before, is this step as long as nothing bounds the weights: b1
/// d' w cancels, and neither z nor d need be kept.
struct scale_by_ftml {
  using kind = elementwise;
  float beta1 = 0.6f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_ftml", field{"beta1", &scale_by_ftml::beta1, ranges::share},
                  field{"beta2", &scale_by_ftml::beta2, ranges::share},
                  field{"epsilon", &scale_by_ftml::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg_sq"};

  struct kernel {
    float beta2 = 0, one_minus_beta2 = 0, gain = 0, bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v) const {
      v = beta2 * v + one_minus_beta2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v) const {
      return gain * u / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta2, detail::complement(beta2),
            static_cast<float>((1 - static_cast<double>(beta1)) * detail::correction(beta1, t)),
            detail::root_correction(beta2, t), detail::root_epsilon(epsilon)};
  }
};

/// FTML (Zheng & Kwok, ICML 2017), the weights that minimize a fading sum of all steps' models: RMSProp's step, with a
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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_ftml{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
