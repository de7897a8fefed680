// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// u <- sign(b1 m + (1 - b1) u) with the m of before; m <- b2 m + (1 - b2) u (Chen et al., Symbolic Discovery of
/// Optimization Algorithms, NeurIPS 2023, program 2).
struct scale_by_lion {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.99f;
  static constexpr auto describe() {
    return policy{"scale_by_lion", field{"beta1", &scale_by_lion::beta1, ranges::share},
                  field{"beta2", &scale_by_lion::beta2, ranges::share}};
  }
  static constexpr std::array slots{"exp_avg"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& m) const {
      T const c = beta1 * m + one_minus_beta1 * u;
      m = beta2 * m + one_minus_beta2 * u;
      return simd::sign(c);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {beta1, detail::complement(beta1), beta2, detail::complement(beta2)};
  }
};

/// Lion (Chen et al., NeurIPS 2023), the sign of an average of gradients in which the newest counts more:
/// w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m <- b2 m + (1 - b2) g. 1 pass, 20 bytes.
struct lion {
  schedule lr = 1e-4f;
  float beta1 = 0.9f;   ///< share of the average, rather than of this gradient, in the step
  float beta2 = 0.99f;  ///< share of the average that a step keeps
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"lion", field{"lr", &lion::lr}, field{"beta1", &lion::beta1, ranges::share},
                  field{"beta2", &lion::beta2, ranges::share},
                  field{"weight_decay", &lion::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_lion, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_lion{beta1, beta2}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
