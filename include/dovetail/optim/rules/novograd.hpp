// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// v <- beta v + (1 - beta) |u|^2, one number per tensor, in the first step |u|^2; u <- u / (sqrt(v) + epsilon)
/// (Ginsburg et al., NovoGrad, 2019, algorithm 1).
struct scale_by_layer_rms {
  using kind = reducing;
  float beta = 0.98f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_layer_rms", field{"beta", &scale_by_layer_rms::beta, ranges::share},
                  field{"epsilon", &scale_by_layer_rms::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true};
  static constexpr std::array scalars{"exp_avg_sq"};

  struct kernel {
    float beta = 0, epsilon = 0;
    bool first = false;
    DOVETAIL_HD float factor(norms n, double& v) const {
      double const square = n.update * n.update, b = static_cast<double>(beta);
      v = first ? square : b * v + (1 - b) * square;
      double const d = std::sqrt(v) + static_cast<double>(epsilon);
      return d > 0 ? detail::factor_from(1 / d) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {beta, epsilon, t == 1}; }
};

/// NovoGrad (Ginsburg et al., 2019): momentum of gradients that each tensor's own running norm has scaled:
/// m <- b1 m + u / (sqrt(v) + epsilon) + weight_decay w, w <- w - lr m. 2 passes, 24 bytes, and one number per tensor.
struct novograd {
  schedule lr = 1e-2f;
  float beta1 = 0.95f;  ///< share of the momentum that a step keeps
  float beta2 = 0.98f;  ///< share of each tensor's average of squared norms that a step keeps
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"novograd",
                  field{"lr", &novograd::lr},
                  field{"beta1", &novograd::beta1, ranges::share},
                  field{"beta2", &novograd::beta2, ranges::share},
                  field{"epsilon", &novograd::epsilon, ranges::not_negative},
                  field{"weight_decay", &novograd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_layer_rms, add_decayed_weights, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_layer_rms{beta2, epsilon}, add_decayed_weights{weight_decay}, accumulate_momentum{beta1},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
