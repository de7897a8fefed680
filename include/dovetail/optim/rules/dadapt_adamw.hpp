// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
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

// u is the update that arrives, w the weight, t the step from 1. All norms, as in |u|^2, are over all tensors.

namespace dovetail::optim {

/// D-Adaptation of Adam: with e = d sqrt(1 - b2^t) / (1 - b1^t), k = sqrt(b2) and the s and v of before, r <- k r +
/// (1 - k) e <u, s / (sqrt(v) + epsilon)>; m <- b1 m + (1 - b1) e u; v <- b2 v + (1 - b2) u^2; s <- k s + (1 - k) e u;
/// u <- m / (sqrt(v) + epsilon) + weight_decay e w; d <- max(d, r / ((1 - k) |s|_1)), <> and |s|_1 over all tensors
/// (Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, ICML 2023, with the corrections of the authors'
/// program).
struct scale_by_dadapt_adam {
  using kind = reducing;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float initial_d = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_dadapt_adam",
                  field{"beta1", &scale_by_dadapt_adam::beta1, ranges::share},
                  field{"beta2", &scale_by_dadapt_adam::beta2, ranges::share},
                  field{"epsilon", &scale_by_dadapt_adam::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_dadapt_adam::weight_decay, ranges::not_negative},
                  field{"initial_d", &scale_by_dadapt_adam::initial_d, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "s", "scaled_s"};
  static constexpr bool exact_slots = true;
  static constexpr std::array scalars{"d", "numerator"};
  constexpr double initial_scalar(std::size_t i) const { return i == 0 ? static_cast<double>(initial_d) : 0.0; }

  struct kernel {
    float beta1 = 0, beta2 = 0, one_minus_beta2 = 0, keep = 0, epsilon = 0, weight_decay = 0;
    double correct = 1, one_minus_beta1 = 0, gradient_weight = 0;  ///< 1 - b1, 1 - k
    float gain1 = 0, gain2 = 0, decay = 0;                         ///< (1 - b1) e, (1 - k) e, weight_decay e
    DOVETAIL_HD constexpr void begin(double d, double) {
      gain1 = static_cast<float>(one_minus_beta1 * correct * d);
      gain2 = static_cast<float>(gradient_weight * correct * d);
      decay = static_cast<float>(static_cast<double>(weight_decay) * correct * d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& s, T& scaled) const {
      scaled = s / (simd::sqrt(v) + epsilon);
      m = beta1 * m + gain1 * u;
      v = beta2 * v + one_minus_beta2 * u * u;
      s = keep * s + gain2 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T, T u, T, T, T s, T scaled) const {
      return {product<T>{u, scaled}, product<T>{simd::abs(s), T(1.0f)}};
    }
    DOVETAIL_HD float factor(std::array<double, 2> const& sums, double& d, double& r) const {
      r = static_cast<double>(keep) * r + gradient_weight * correct * d * sums[0];
      double const estimate = sums[1] > 0 ? r / (gradient_weight * sums[1]) : 0;
      if (estimate > d) d = estimate;
      return 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T v, T, T, T) const {
      return m / (simd::sqrt(v) + epsilon) + decay * w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b2 = static_cast<double>(beta2), k = std::sqrt(b2);
    return {beta1,
            beta2,
            detail::complement(beta2),
            static_cast<float>(k),
            detail::root_epsilon(epsilon),
            weight_decay,
            detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t)),
            1 - static_cast<double>(beta1),
            1 - k};
  }
};

/// D-Adaptation of AdamW (Defazio & Mishchenko, ICML 2023): AdamW that finds its rate d from how far gradients have
/// agreed, the forerunner of Prodigy. 2 passes, 48 bytes.
struct dadapt_adamw {
  schedule lr = 1;  ///< factor of the rate that is found
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;   ///< decoupled: a step also takes lr d weight_decay of each weight away
  float initial_d = 1e-6f;  ///< the rate of the first step; it only grows
  static constexpr auto describe() {
    return policy{"dadapt_adamw",
                  field{"lr", &dadapt_adamw::lr},
                  field{"beta1", &dadapt_adamw::beta1, ranges::share},
                  field{"beta2", &dadapt_adamw::beta2, ranges::share},
                  field{"epsilon", &dadapt_adamw::epsilon, ranges::not_negative},
                  field{"weight_decay", &dadapt_adamw::weight_decay, ranges::not_negative},
                  field{"initial_d", &dadapt_adamw::initial_d, ranges::positive}};
  }

  using rule = chain<scale_by_dadapt_adam, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_dadapt_adam{beta1, beta2, epsilon, weight_decay, initial_d}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
