// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
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

/// m <- b1 m + (1 - b1) u; v <- v - (1 - b2) sign(v - u^2) u^2; u <- m^ / (sqrt(v^) + epsilon) (Zaheer et al., Adaptive
/// Methods for Nonconvex Optimization, NeurIPS 2018, algorithm 2, with Adam's corrections as in optax).
struct scale_by_yogi {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-3f;
  float initial_accumulator = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_yogi", field{"beta1", &scale_by_yogi::beta1, ranges::share},
                  field{"beta2", &scale_by_yogi::beta2, ranges::share},
                  field{"epsilon", &scale_by_yogi::epsilon, ranges::not_negative},
                  field{"initial_accumulator", &scale_by_yogi::initial_accumulator, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};
  constexpr float initial_value(std::size_t slot) const { return slot == 1 ? initial_accumulator : 0; }

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, one_minus_beta2 = 0, epsilon = 0, bias_correction1 = 0, bias_correction2 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + one_minus_beta1 * u;
      v = v - simd::sign(v - u * u) * (one_minus_beta2 * u * u);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return bias_correction1 * m / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            detail::complement(beta2),
            detail::root_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t)};
  }
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
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_yogi{beta1, beta2, epsilon, initial_accumulator}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
