// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
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

/// First step: v <- u^2, u <- 0. Then m <- b1 m + (1 - b1) clamp(u / max(sqrt(v), epsilon), (t - 1)^(1/4)) with the v
/// of before; v <- b2 v + (1 - b2) u^2; u <- m (Taniguchi et al., ADOPT, NeurIPS 2024, algorithm 2 with clipping).
struct scale_by_adopt {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.9999f;
  float epsilon = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_adopt", field{"beta1", &scale_by_adopt::beta1, ranges::share},
                  field{"beta2", &scale_by_adopt::beta2, ranges::share},
                  field{"epsilon", &scale_by_adopt::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, limit = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      T const scaled = u / simd::max(simd::sqrt(v), T(epsilon));
      m = beta1 * m + one_minus_beta1 * simd::max(simd::min(scaled, T(limit)), T(-limit));
      v = beta2 * v + one_minus_beta2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T) const {
      return m;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            t == 1 ? 0.0f : beta2,
            t == 1 ? 1.0f : detail::complement(beta2),
            static_cast<float>(std::pow(static_cast<double>(t - 1), 0.25)),
            detail::root_epsilon(epsilon)};
  }
};

/// ADOPT (Taniguchi et al., NeurIPS 2024, algorithm 2, with clipping): Adam that divides by the second moment before
/// this gradient enters it, and so converges with any beta2. The first step only measures. Weight decay is decoupled.
/// 1 pass, 28 bytes.
struct adopt {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.9999f;
  float epsilon = 1e-6f;  ///< the least that a gradient is divided by
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adopt",
                  field{"lr", &adopt::lr},
                  field{"beta1", &adopt::beta1, ranges::share},
                  field{"beta2", &adopt::beta2, ranges::share},
                  field{"epsilon", &adopt::epsilon, ranges::not_negative},
                  field{"weight_decay", &adopt::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adopt, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adopt{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
