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

/// Adam's moments; x <- max(x, v); u <- m^ / (sqrt(x / (1 - b2^t)) + epsilon) (Reddi et al., On the Convergence of Adam
/// and Beyond, ICLR 2018, algorithm 2, with PyTorch's corrections).
struct scale_by_amsgrad {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_amsgrad", field{"beta1", &scale_by_amsgrad::beta1, ranges::share},
                  field{"beta2", &scale_by_amsgrad::beta2, ranges::share},
                  field{"epsilon", &scale_by_amsgrad::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : detail::largest_moments {
    float bias_correction1 = 0, bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T, T x) const {
      return bias_correction1 * m / (bias_correction2 * simd::sqrt(x) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {{detail::moments_of(beta1, beta2)},
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// AMSGrad (Reddi et al., ICLR 2018): Adam with the largest second moment so far. 1 pass, 36 bytes.
struct amsgrad {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"amsgrad",
                  field{"lr", &amsgrad::lr},
                  field{"beta1", &amsgrad::beta1, ranges::share},
                  field{"beta2", &amsgrad::beta2, ranges::share},
                  field{"epsilon", &amsgrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &amsgrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_amsgrad, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_amsgrad{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
