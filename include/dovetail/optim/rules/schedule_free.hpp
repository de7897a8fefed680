// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/averaging.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// v <- beta v + (1 - beta) u^2; u <- u / (sqrt(v / (1 - beta^t)) + epsilon): Adam's direction without momentum.
struct scale_by_corrected_rms {
  using kind = elementwise;
  float beta = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_corrected_rms", field{"beta", &scale_by_corrected_rms::beta, ranges::share},
                  field{"epsilon", &scale_by_corrected_rms::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg_sq"};

  struct kernel {
    float beta = 0, rest = 0, correct = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v) const {
      v = beta * v + rest * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v) const {
      return u / (correct * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta, detail::complement(beta), detail::root_correction(beta, t), detail::root_epsilon(epsilon)};
  }
};

/// Schedule-free SGD (Defazio et al., NeurIPS 2024): no schedule, but an average of the weights, which averaged_weights
/// gives. 1 pass, 20 bytes.
struct schedule_free_sgd {
  float lr = 1;
  float beta = 0.9f;        ///< where gradients are taken: 0 at z, 1 at the average
  std::int64_t warmup = 0;  ///< steps over which the rate rises to lr
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"schedule_free_sgd", field{"lr", &schedule_free_sgd::lr, ranges::not_negative},
                  field{"beta", &schedule_free_sgd::beta, ranges::unit},
                  field{"warmup", &schedule_free_sgd::warmup, ranges::not_negative},
                  field{"weight_decay", &schedule_free_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, schedule_free>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {add_decayed_weights{weight_decay}, schedule_free{lr, beta, warmup}}; }
  DOVETAIL_OPTIMIZER
};

/// Schedule-free AdamW (Defazio et al., NeurIPS 2024, algorithm 1): no schedule, but an average of the weights, which
/// averaged_weights gives. 1 pass, 28 bytes.
struct schedule_free_adamw {
  float lr = 2.5e-3f;
  float beta1 = 0.9f;  ///< where gradients are taken: 0 at z, 1 at the average
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  std::int64_t warmup = 0;  ///< steps over which the rate rises to lr
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"schedule_free_adamw",
                  field{"lr", &schedule_free_adamw::lr, ranges::not_negative},
                  field{"beta1", &schedule_free_adamw::beta1, ranges::unit},
                  field{"beta2", &schedule_free_adamw::beta2, ranges::share},
                  field{"epsilon", &schedule_free_adamw::epsilon, ranges::not_negative},
                  field{"warmup", &schedule_free_adamw::warmup, ranges::not_negative},
                  field{"weight_decay", &schedule_free_adamw::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_corrected_rms, add_decayed_weights, schedule_free>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_corrected_rms{beta2, epsilon}, add_decayed_weights{weight_decay},
            schedule_free{lr, beta1, warmup}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
