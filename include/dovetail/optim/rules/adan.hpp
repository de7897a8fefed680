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

/// With d = u - (the gradient before), 0 at first: m <- b1 m + (1 - b1) u; c <- b2 c + (1 - b2) d;
/// n <- b3 n + (1 - b3)(u + b2 d)^2; u <- (m^ + b2 c^) / (sqrt(n^) + epsilon) (Xie et al., Adan, TPAMI 2024,
/// algorithm 1, each average corrected as in Adam).
struct scale_by_adan {
  using kind = elementwise;
  float beta1 = 0.98f, beta2 = 0.92f, beta3 = 0.99f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adan", field{"beta1", &scale_by_adan::beta1, ranges::share},
                  field{"beta2", &scale_by_adan::beta2, ranges::share},
                  field{"beta3", &scale_by_adan::beta3, ranges::share},
                  field{"epsilon", &scale_by_adan::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, beta3 = 0, one_minus_beta3 = 0, epsilon = 0;
    float changes = 0, bias_correction1 = 0, bias_correction2 = 0, correct3 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& c, T& n, T& before) const {
      T const d = changes * (u - before), looked_ahead = u + beta2 * d;
      m = beta1 * m + one_minus_beta1 * u;
      c = beta2 * c + one_minus_beta2 * d;
      n = beta3 * n + one_minus_beta3 * looked_ahead * looked_ahead;
      before = u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T c, T n, T) const {
      return (bias_correction1 * m + bias_correction2 * c) / (correct3 * simd::sqrt(n) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            beta3,
            detail::complement(beta3),
            detail::root_epsilon(epsilon),
            t == 1 ? 0.0f : 1.0f,
            static_cast<float>(detail::correction(beta1, t)),
            static_cast<float>(static_cast<double>(beta2) * detail::correction(beta2, t)),
            detail::root_correction(beta3, t)};
  }
};

/// Adan (Xie et al., TPAMI 2024, algorithm 1): moments of the gradient and of its change. The betas are what is kept,
/// as in the authors' program. Weight decay is decoupled. 1 pass, 44 bytes.
struct adan {
  schedule lr = 1e-3f;
  float beta1 = 0.98f;  ///< share of the average of gradients that a step keeps
  float beta2 = 0.92f;  ///< of the average of their changes; also how far the gradient is looked ahead
  float beta3 = 0.99f;  ///< of the average of squares
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adan",
                  field{"lr", &adan::lr},
                  field{"beta1", &adan::beta1, ranges::share},
                  field{"beta2", &adan::beta2, ranges::share},
                  field{"beta3", &adan::beta3, ranges::share},
                  field{"epsilon", &adan::epsilon, ranges::not_negative},
                  field{"weight_decay", &adan::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adan, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adan{beta1, beta2, beta3, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
