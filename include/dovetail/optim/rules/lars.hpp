// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// u <- r (u + weight_decay w) with r = trust_coefficient |w| / (|u| + weight_decay |w| + epsilon), norms of each
/// tensor (You et al., Large Batch Training of Convolutional Networks, 2017, algorithm 1). r = 1 if either norm is 0.
struct scale_by_lars_trust_ratio {
  using kind = reducing;
  float trust_coefficient = 1e-3f;  ///< length of the new update, as a share of |w|
  float weight_decay = 0;           ///< share of the weight that is added
  float epsilon = 0;                ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"scale_by_lars_trust_ratio",
                  field{"trust_coefficient", &scale_by_lars_trust_ratio::trust_coefficient, ranges::positive},
                  field{"weight_decay", &scale_by_lars_trust_ratio::weight_decay, ranges::not_negative},
                  field{"epsilon", &scale_by_lars_trust_ratio::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};

  struct kernel {
    float trust_coefficient = 0, weight_decay = 0, epsilon = 0;
    DOVETAIL_HD float factor(norms n) const {
      if (!(n.weight > 0 && n.update > 0)) return 1.0f;
      return detail::factor_from(
          static_cast<double>(trust_coefficient) * n.weight /
          (n.update + static_cast<double>(weight_decay) * n.weight + static_cast<double>(epsilon)));
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return factor * (u + weight_decay * w);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {trust_coefficient, weight_decay, epsilon}; }
};

/// LARS (You et al., 2017), momentum with a rate for each tensor: r = trust_coefficient |w| / (|g| + weight_decay |w|),
/// b <- momentum b + r (g + weight_decay w), w <- w - lr b. The rate multiplies behind the momentum, as in
/// PyTorch's SGD: the paper's update when the rate is constant. 2 passes, 28 bytes.
struct lars {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float weight_decay = 5e-4f;       ///< coupled, and part of the trust ratio
  float trust_coefficient = 1e-3f;  ///< length of a step with lr 1, as a share of |w|
  float epsilon = 0;                ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"lars",
                  field{"lr", &lars::lr},
                  field{"momentum", &lars::momentum, ranges::share},
                  field{"weight_decay", &lars::weight_decay, ranges::not_negative},
                  field{"trust_coefficient", &lars::trust_coefficient, ranges::positive},
                  field{"epsilon", &lars::epsilon, ranges::not_negative}};
  }

  using rule = chain<scale_by_lars_trust_ratio, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_lars_trust_ratio{trust_coefficient, weight_decay, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
