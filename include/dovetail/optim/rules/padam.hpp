// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Adam's moments; x <- max(x, v); u <- c m / (sqrt(x) + epsilon)^(2 power), c = sqrt(1 - b2^t) / (1 - b1^t) (Chen et
/// al., Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural Networks, IJCAI 2020,
/// algorithm 1, with the corrections of the authors' program).
struct scale_by_padam {
  using kind = elementwise;
  float power = 0.125f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{
        "scale_by_padam", field{"power", &scale_by_padam::power, bounds{.low = 0, .high = 0.5, .above = true}},
        field{"beta1", &scale_by_padam::beta1, ranges::share}, field{"beta2", &scale_by_padam::beta2, ranges::share},
        field{"epsilon", &scale_by_padam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : detail::largest_moments {
    float correct = 0, twice_power = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T, T x) const {
      return correct * m / simd::pow(simd::sqrt(x) + epsilon, twice_power);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {{detail::moments_of(beta1, beta2)},
            static_cast<float>(detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t))),
            2 * power,
            detail::root_epsilon(epsilon)};
  }
};

/// Padam (Chen et al., IJCAI 2020, algorithm 1): AMSGrad with a power of the second moment between SGD's 0 and Adam's
/// 1/2. 1 pass, 36 bytes.
struct padam {
  schedule lr = 0.1f;
  float power = 0.125f;  ///< of the second moment: 1/2 is AMSGrad
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"padam",
                  field{"lr", &padam::lr},
                  field{"power", &padam::power, bounds{.low = 0, .high = 0.5, .above = true}},
                  field{"beta1", &padam::beta1, ranges::share},
                  field{"beta2", &padam::beta2, ranges::share},
                  field{"epsilon", &padam::epsilon, ranges::not_negative},
                  field{"weight_decay", &padam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_padam, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_padam{power, beta1, beta2, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
