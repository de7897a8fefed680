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

/// Adam's moments; u <- ((1 - nu1) u + nu1 m^) / (sqrt((1 - nu2) u^2 + nu2 v^) + epsilon) (Ma & Yarats, ICLR 2019,
/// section 4).
struct scale_by_qhadam {
  using kind = elementwise;
  float nu1 = 0.7f, nu2 = 1;
  float beta1 = 0.995f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_qhadam",
                  field{"nu1", &scale_by_qhadam::nu1, ranges::unit},
                  field{"nu2", &scale_by_qhadam::nu2, ranges::unit},
                  field{"beta1", &scale_by_qhadam::beta1, ranges::share},
                  field{"beta2", &scale_by_qhadam::beta2, ranges::share},
                  field{"epsilon", &scale_by_qhadam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float gradient_weight1 = 0, momentum_weight1 = 0, gradient_weight2 = 0, momentum_weight2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (gradient_weight1 * u + momentum_weight1 * m) /
             (simd::sqrt(gradient_weight2 * u * u + momentum_weight2 * v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {detail::moments_of(beta1, beta2),
            detail::complement(nu1),
            static_cast<float>(static_cast<double>(nu1) * detail::correction(beta1, t)),
            detail::complement(nu2),
            static_cast<float>(static_cast<double>(nu2) * detail::correction(beta2, t)),
            detail::root_epsilon(epsilon)};
  }
};

/// QHAdam (Ma & Yarats, ICLR 2019, section 4): Adam with quasi-hyperbolic averages of both moments. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct qhadam {
  schedule lr = 1e-3f;
  float nu1 = 0.7f;  ///< share of the average, rather than of this gradient, in the numerator
  float nu2 = 1;     ///< share of the average, rather than of this square, in the denominator
  float beta1 = 0.995f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"qhadam",
                  field{"lr", &qhadam::lr},
                  field{"nu1", &qhadam::nu1, ranges::unit},
                  field{"nu2", &qhadam::nu2, ranges::unit},
                  field{"beta1", &qhadam::beta1, ranges::share},
                  field{"beta2", &qhadam::beta2, ranges::share},
                  field{"epsilon", &qhadam::epsilon, ranges::not_negative},
                  field{"weight_decay", &qhadam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_qhadam, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_qhadam{nu1, nu2, beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
