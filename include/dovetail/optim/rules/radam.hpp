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

/// Adam's moments. With r = 2 / (1 - b2) - 1 and r_t = r - 2 t b2^t / (1 - b2^t): u <- m^ while r_t <= 5, then
/// u <- m^ sqrt((r_t - 4)(r_t - 2) r / ((r - 4)(r - 2) r_t)) sqrt(1 - b2^t) / (sqrt(v) + epsilon) (Liu et al., On the
/// Variance of the Adaptive Learning Rate and Beyond, ICLR 2020, algorithm 2).
struct scale_by_radam {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_radam", field{"beta1", &scale_by_radam::beta1, ranges::share},
                  field{"beta2", &scale_by_radam::beta2, ranges::share},
                  field{"epsilon", &scale_by_radam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float bias_correction1 = 0, plain = 0, adaptive = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return bias_correction1 * m * (plain + adaptive / (simd::sqrt(v) + epsilon));
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b2 = static_cast<double>(beta2), n = static_cast<double>(t), b2t = detail::power(b2, t);
    double const r = 2 / (1 - b2) - 1, rt = r - 2 * n * b2t / (1 - b2t);
    bool const trusted = rt > 5;
    double const rectified = trusted ? std::sqrt((rt - 4) * (rt - 2) * r / ((r - 4) * (r - 2) * rt) * (1 - b2t)) : 0;
    return {detail::moments_of(beta1, beta2), static_cast<float>(detail::correction(beta1, t)), trusted ? 0.0f : 1.0f,
            static_cast<float>(rectified), detail::root_epsilon(epsilon)};
  }
};

/// RAdam (Liu et al., ICLR 2020): Adam that waits until its second moment can be trusted. 1 pass, 28 bytes.
struct radam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"radam",
                  field{"lr", &radam::lr},
                  field{"beta1", &radam::beta1, ranges::share},
                  field{"beta2", &radam::beta2, ranges::share},
                  field{"epsilon", &radam::epsilon, ranges::not_negative},
                  field{"weight_decay", &radam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_radam, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_radam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
