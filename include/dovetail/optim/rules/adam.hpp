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

/// Adam's direction (Kingma & Ba, ICLR 2015, algorithm 1): m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) u^2;
/// u <- m^ / (sqrt(v^) + epsilon) with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t).
struct scale_by_adam {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adam", field{"beta1", &scale_by_adam::beta1, ranges::share},
                  field{"beta2", &scale_by_adam::beta2, ranges::share},
                  field{"epsilon", &scale_by_adam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, epsilon = 0;
    float bias_correction1 = 0, bias_correction2 = 0;  ///< 1 / (1 - b1^t), 1 / sqrt(1 - b2^t)
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + one_minus_beta1 * u;
      v = beta2 * v + one_minus_beta2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return bias_correction1 * m / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b1 = static_cast<double>(beta1), b2 = static_cast<double>(beta2);
    return {beta1,
            static_cast<float>(1 - b1),
            beta2,
            static_cast<float>(1 - b2),
            detail::root_epsilon(epsilon),
            static_cast<float>(1 / (1 - detail::power(b1, t))),
            static_cast<float>(1 / std::sqrt(1 - detail::power(b2, t)))};
  }
};

/// Adam (Kingma & Ba, ICLR 2015): an average of gradients over the root of an average of their squares. Weight decay is
/// coupled, as L2 regularization. 1 pass, 28 bytes.
struct adam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adam",
                  field{"lr", &adam::lr},
                  field{"beta1", &adam::beta1, ranges::share},
                  field{"beta2", &adam::beta2, ranges::share},
                  field{"epsilon", &adam::epsilon, ranges::not_negative},
                  field{"weight_decay", &adam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adam, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdamW (Loshchilov & Hutter, ICLR 2019): Adam with decoupled weight decay, scaled by lr as in PyTorch. 1 pass, 28
/// bytes.
struct adamw {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;
  static constexpr auto describe() {
    return policy{"adamw",
                  field{"lr", &adamw::lr},
                  field{"beta1", &adamw::beta1, ranges::share},
                  field{"beta2", &adamw::beta2, ranges::share},
                  field{"epsilon", &adamw::epsilon, ranges::not_negative},
                  field{"weight_decay", &adamw::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
