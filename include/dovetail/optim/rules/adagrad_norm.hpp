// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. All norms, as in |u|^2, are over all tensors.

namespace dovetail::optim {

/// s <- s + |u|^2; u <- u / sqrt(s), s beginning as initial^2 (Ward, Wu & Bottou, AdaGrad Stepsizes: Sharp Convergence
/// over Nonconvex Landscapes, ICML 2019, algorithm 1).
struct scale_by_adagrad_norm {
  using kind = reducing;
  float initial = 1e-2f;  ///< b_0 of the paper, in units of the gradient's norm
  static constexpr auto describe() {
    return policy{"scale_by_adagrad_norm", field{"initial", &scale_by_adagrad_norm::initial, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"sum"};
  constexpr double initial_scalar(std::size_t) const {
    return static_cast<double>(initial) * static_cast<double>(initial);
  }

  struct kernel {
    DOVETAIL_HD float factor(norms n, double& sum) const {
      sum += n.update * n.update;
      return sum > 0 ? detail::factor_from(1 / std::sqrt(sum)) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// AdaGrad-Norm (Ward, Wu & Bottou, ICML 2019, algorithm 1): one rate for all weights, over the root of the sum of all
/// squared gradients' norms. 2 passes, 20 bytes.
struct adagrad_norm {
  schedule lr = 1;
  float initial = 1e-2f;  ///< b_0 of the paper, in units of the gradient's norm
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adagrad_norm", field{"lr", &adagrad_norm::lr},
                  field{"initial", &adagrad_norm::initial, ranges::not_negative},
                  field{"weight_decay", &adagrad_norm::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adagrad_norm, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adagrad_norm{initial}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
