// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// LARC, LARS that only lowers the rate (NVIDIA Apex, 2018): u <- min(r / lr, 1) (u + weight_decay w) with r =
/// trust_coefficient |w| / (|u| + weight_decay |w| + epsilon), norms of each tensor, lr the rate that the chain ends
/// with.
struct scale_by_clipped_lars_trust_ratio {
  using kind = reducing;
  float lr = 0.1f;                  ///< the rate that the chain ends with
  float trust_coefficient = 0.02f;  ///< length of a step below that rate, as a share of |w|
  float weight_decay = 0;           ///< share of the weight that is added
  float epsilon = 1e-8f;            ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"scale_by_clipped_lars_trust_ratio",
                  field{"lr", &scale_by_clipped_lars_trust_ratio::lr, ranges::not_negative},
                  field{"trust_coefficient", &scale_by_clipped_lars_trust_ratio::trust_coefficient, ranges::positive},
                  field{"weight_decay", &scale_by_clipped_lars_trust_ratio::weight_decay, ranges::not_negative},
                  field{"epsilon", &scale_by_clipped_lars_trust_ratio::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};

  struct kernel {
    float lr = 0, trust_coefficient = 0, weight_decay = 0, epsilon = 0;
    DOVETAIL_HD float factor(norms n) const {
      if (!(n.weight > 0 && n.update > 0)) return 1.0f;
      double const r = static_cast<double>(trust_coefficient) * n.weight /
                       (n.update + static_cast<double>(weight_decay) * n.weight + static_cast<double>(epsilon));
      auto const rate = static_cast<double>(lr);
      return r < rate ? static_cast<float>(r / rate) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return factor * (u + weight_decay * w);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {lr, trust_coefficient, weight_decay, epsilon}; }
};

/// LARC (NVIDIA Apex, 2018): LARS whose rate per tensor never exceeds lr, with momentum. `lr` is one number: the stage
/// compares with it. 2 passes, 28 bytes.
struct larc {
  float lr = 0.1f;  ///< the largest rate; a number, no schedule
  float momentum = 0.9f;
  float weight_decay = 0;           ///< coupled, and part of the trust ratio
  float trust_coefficient = 0.02f;  ///< length of a step below the largest rate, as a share of |w|
  float epsilon = 1e-8f;            ///< added to the denominator of the trust ratio
  static constexpr auto describe() {
    return policy{"larc",
                  field{"lr", &larc::lr, ranges::not_negative},
                  field{"momentum", &larc::momentum, ranges::share},
                  field{"weight_decay", &larc::weight_decay, ranges::not_negative},
                  field{"trust_coefficient", &larc::trust_coefficient, ranges::positive},
                  field{"epsilon", &larc::epsilon, ranges::not_negative}};
  }

  using rule = chain<scale_by_clipped_lars_trust_ratio, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_clipped_lars_trust_ratio{lr, trust_coefficient, weight_decay, epsilon},
            accumulate_momentum{momentum}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
