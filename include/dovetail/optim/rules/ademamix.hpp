// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
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

/// Adam's moments and a slow average n <- b3 n + (1 - b3) u; u <- (m^ + alpha n) / (sqrt(v^) + epsilon). Over the first
/// `warmup` steps alpha grows linearly and b3 such that its half-life does (Pagliardini et al., The AdEMAMix
/// Optimizer, ICLR 2025, algorithm 1 and equation 4).
struct scale_by_ademamix {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f, beta3 = 0.9999f;
  float alpha = 5;
  std::int64_t warmup = 0;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_ademamix",
                  field{"beta1", &scale_by_ademamix::beta1, ranges::share},
                  field{"beta2", &scale_by_ademamix::beta2, ranges::share},
                  field{"beta3", &scale_by_ademamix::beta3, ranges::share},
                  field{"alpha", &scale_by_ademamix::alpha, ranges::not_negative},
                  field{"warmup", &scale_by_ademamix::warmup, ranges::not_negative},
                  field{"epsilon", &scale_by_ademamix::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "exp_avg_slow"};

  struct kernel : detail::moments {
    float beta3 = 0, one_minus_beta3 = 0, alpha = 0, bias_correction1 = 0, bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& n) const {
      detail::moments::advance(u, m, v);
      n = beta3 * n + one_minus_beta3 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T n) const {
      return (bias_correction1 * m + alpha * n) / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double a = static_cast<double>(alpha), b3 = static_cast<double>(beta3);
    if (t < warmup) {
      double const done = static_cast<double>(t) / static_cast<double>(warmup);
      a *= done;
      if (b3 > 0) {
        // An average that keeps nothing has no half-life to begin with: only b3's counts.
        double const to = std::log(b3), from = beta1 > 0 ? std::log(static_cast<double>(beta1)) : 0;
        b3 = std::min(std::exp(beta1 > 0 ? from * to / ((1 - done) * to + done * from) : to / done), b3);
      }
    }
    return {detail::moments_of(beta1, beta2),
            static_cast<float>(b3),
            static_cast<float>(1 - b3),
            static_cast<float>(a),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// AdEMAMix (Pagliardini et al., ICLR 2025): AdamW with a second, slow average of gradients. 1 pass, 36 bytes.
struct ademamix {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0.9999f;    ///< share of the slow average that a step keeps
  float alpha = 5;          ///< weight of the slow average
  std::int64_t warmup = 0;  ///< steps over which alpha and beta3 reach their values; 0: at once
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"ademamix",
                  field{"lr", &ademamix::lr},
                  field{"beta1", &ademamix::beta1, ranges::share},
                  field{"beta2", &ademamix::beta2, ranges::share},
                  field{"beta3", &ademamix::beta3, ranges::share},
                  field{"alpha", &ademamix::alpha, ranges::not_negative},
                  field{"warmup", &ademamix::warmup, ranges::not_negative},
                  field{"epsilon", &ademamix::epsilon, ranges::not_negative},
                  field{"weight_decay", &ademamix::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_ademamix, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_ademamix{beta1, beta2, beta3, alpha, warmup, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// m <- b1 m + u; v <- b2 v + (1 - b2) u^2; u <- (m + alpha u) / (sqrt(v^) + epsilon) (Morwani et al., Connections
/// between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants, 2025).
struct scale_by_simplified_ademamix {
  using kind = elementwise;
  float beta1 = 0.99f, beta2 = 0.95f;
  float alpha = 0;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_simplified_ademamix", field{"beta1", &scale_by_simplified_ademamix::beta1, ranges::share},
                  field{"beta2", &scale_by_simplified_ademamix::beta2, ranges::share},
                  field{"alpha", &scale_by_simplified_ademamix::alpha, ranges::not_negative},
                  field{"epsilon", &scale_by_simplified_ademamix::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, beta2 = 0, one_minus_beta2 = 0, alpha = 0, bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + u;
      v = beta2 * v + one_minus_beta2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (m + alpha * u) / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            beta2,
            detail::complement(beta2),
            alpha,
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// Simplified AdEMAMix (Morwani et al., 2025): this gradient beside one slow sum of gradients, over the second moment.
/// Weight decay is decoupled. 1 pass, 28 bytes.
struct simplified_ademamix {
  schedule lr = 1e-4f;
  float beta1 = 0.99f;  ///< share of the sum of gradients that a step keeps; a step is up to 1 / (1 - beta1) of Adam's
  float beta2 = 0.95f;
  float alpha = 0;  ///< weight of this gradient beside the sum
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"simplified_ademamix",
                  field{"lr", &simplified_ademamix::lr},
                  field{"beta1", &simplified_ademamix::beta1, ranges::share},
                  field{"beta2", &simplified_ademamix::beta2, ranges::share},
                  field{"alpha", &simplified_ademamix::alpha, ranges::not_negative},
                  field{"epsilon", &simplified_ademamix::epsilon, ranges::not_negative},
                  field{"weight_decay", &simplified_ademamix::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_simplified_ademamix, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_simplified_ademamix{beta1, beta2, alpha, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
