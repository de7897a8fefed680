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

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// Adam that finds its own rate d (Mishchenko & Defazio, Prodigy, ICML 2024, algorithm 4, as in the authors' program):
/// m <- b1 m + (1 - b1) d u; v <- b2 v + (1 - b2) d^2 u^2; s <- b3 s + d^2 u / d0; r <- b3 r + d^2 <u, w0 - w> / d0,
/// with w0 the first weights, <> and |s|_1 over all tensors; d' = max(d, coefficient r / |s|_1); u <- d (m / (sqrt(v) +
/// d' epsilon) + weight_decay w); d <- d'. With bias_correction u and what is added to s and r are also multiplied by
/// sqrt(1 - b2^t) / (1 - b1^t), as optax does.
struct scale_by_prodigy {
  using kind = reducing;
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0;  ///< 0: sqrt(beta2)
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float initial_d = 1e-6f;
  float coefficient = 1;
  bool bias_correction = false;
  static constexpr auto describe() {
    return policy{"scale_by_prodigy",
                  field{"beta1", &scale_by_prodigy::beta1, ranges::share},
                  field{"beta2", &scale_by_prodigy::beta2, ranges::share},
                  field{"beta3", &scale_by_prodigy::beta3, ranges::share},
                  field{"epsilon", &scale_by_prodigy::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_prodigy::weight_decay, ranges::not_negative},
                  field{"initial_d", &scale_by_prodigy::initial_d, ranges::positive},
                  field{"coefficient", &scale_by_prodigy::coefficient, ranges::positive},
                  field{"bias_correction", &scale_by_prodigy::bias_correction}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "s", "p0"};
  static constexpr bool slots_hold_weights = true;
  static constexpr std::array scalars{"d", "numerator"};
  constexpr double initial_scalar(std::size_t i) const { return i == 0 ? static_cast<double>(initial_d) : 0.0; }

  struct kernel {
    float beta1 = 0, beta2 = 0, beta3 = 0, epsilon = 0, weight_decay = 0, first = 0;
    double initial_d = 0, coefficient = 0, correct = 1;
    float gain1 = 0, gain2 = 0, gain3 = 0;  ///< (1 - b1) d, (1 - b2) d^2, d^2 / d0
    DOVETAIL_HD constexpr void begin(double d, double) {
      gain1 = static_cast<float>((1 - static_cast<double>(beta1)) * d);
      gain2 = static_cast<float>((1 - static_cast<double>(beta2)) * d * d);
      gain3 = static_cast<float>(correct * d * d / initial_d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& m, T& v, T& s, T& w0) const {
      w0 = simd::select(T(first) > 0.0f, w, w0);
      m = beta1 * m + gain1 * u;
      v = beta2 * v + gain2 * u * u;
      s = beta3 * s + gain3 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T w, T u, T, T, T s, T w0) const {
      return {product<T>{u, w0 - w}, product<T>{simd::abs(s), T(1.0f)}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 2> const& sums, double& d, double& r) const {
      double const before = d;
      r = static_cast<double>(beta3) * r + correct * d * d / initial_d * sums[0];
      double const estimate = sums[1] > 0 ? coefficient * r / sums[1] : 0;
      if (estimate > d) d = estimate;
      return {static_cast<float>(correct * before),
              detail::root_epsilon(static_cast<float>(d * static_cast<double>(epsilon)))};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T v, T, T, T d, T d_epsilon) const {
      return d * (m / (simd::sqrt(v) + d_epsilon) + weight_decay * w);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            beta2,
            beta3 > 0 ? beta3 : static_cast<float>(std::sqrt(static_cast<double>(beta2))),
            epsilon,
            weight_decay,
            t == 1 ? 1.0f : 0.0f,
            static_cast<double>(initial_d),
            static_cast<double>(coefficient),
            bias_correction ? detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t)) : 1};
  }
};

/// Prodigy (Mishchenko & Defazio, ICML 2024): AdamW that finds its own rate; `lr` is a factor around it, 1 unless
/// annealed. 2 passes, 56 bytes.
struct prodigy {
  schedule lr = 1;  ///< factor of the rate that it finds
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;        ///< decoupled: a step also takes lr d weight_decay of each weight away
  float initial_d = 1e-6f;       ///< the first rate: small, but not 0
  float coefficient = 1;         ///< what the estimated rate is multiplied by
  bool bias_correction = false;  ///< Adam's corrections, which also slow the first steps down
  static constexpr auto describe() {
    return policy{"prodigy",
                  field{"lr", &prodigy::lr},
                  field{"beta1", &prodigy::beta1, ranges::share},
                  field{"beta2", &prodigy::beta2, ranges::share},
                  field{"epsilon", &prodigy::epsilon, ranges::not_negative},
                  field{"weight_decay", &prodigy::weight_decay, ranges::not_negative},
                  field{"initial_d", &prodigy::initial_d, ranges::positive},
                  field{"coefficient", &prodigy::coefficient, ranges::positive},
                  field{"bias_correction", &prodigy::bias_correction}};
  }

  using rule = chain<scale_by_prodigy, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_prodigy{beta1, beta2, 0, epsilon, weight_decay, initial_d, coefficient, bias_correction},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
