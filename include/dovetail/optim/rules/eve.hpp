// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The loss of the step is f, which step_context::loss
// gives and train::trainer sets by itself; <a, b> and |a|^2 are sums over all tensors.

namespace dovetail::optim {

/// d <- beta d + (1 - beta) c from the second step on, c = |f - f'| / (min(f, f') - lower_bound), held within
/// [1 / clipping, clipping], f' the loss of the step before, d beginning at 1; u <- u / d (Hayashi, Koushik & Neubig,
/// Eve: A Gradient Based Optimization Method with Locally and Globally Adaptive Learning Rates, 2016, algorithm 1).
struct scale_by_loss_change {
  using kind = reducing;
  float beta = 0.999f;
  float clipping = 10;
  float lower_bound = 0;  ///< of the loss
  static constexpr auto describe() {
    return policy{"scale_by_loss_change", field{"beta", &scale_by_loss_change::beta, ranges::share},
                  field{"clipping", &scale_by_loss_change::clipping, bounds{.low = 1}},
                  field{"lower_bound", &scale_by_loss_change::lower_bound, ranges::finite}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"d", "loss"};
  static constexpr double initial_scalar(std::size_t i) { return i == 0 ? 1.0 : 0.0; }

  struct kernel {
    float beta = 0, clipping = 0, lower_bound = 0;
    bool first = false;
    double loss = 0;
    constexpr void evaluated(double f) { loss = f; }
    DOVETAIL_HD float factor(norms, double& d, double& before) const {
      if (!first) {
        double const limit = static_cast<double>(clipping), change = std::abs(loss - before),
                     above = std::min(loss, before) - static_cast<double>(lower_bound);
        double const c = above > 0 ? std::min(std::max(change / above, 1 / limit), limit) : limit;
        d = static_cast<double>(beta) * d + (1 - static_cast<double>(beta)) * c;
      }
      before = loss;
      return static_cast<float>(1 / d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {beta, clipping, lower_bound, t == 1}; }
};

/// Eve (Hayashi, Koushik & Neubig, 2016, algorithm 1): Adam with steps that become shorter while the loss changes much.
/// Needs step_context::loss. 2 passes, 40 bytes.
struct eve {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0.999f;  ///< share of the average of changes of the loss that a step keeps
  float epsilon = 1e-8f;
  float clipping = 10;    ///< the largest change that counts, and the inverse of the smallest
  float lower_bound = 0;  ///< of the loss
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"eve",
                  field{"lr", &eve::lr},
                  field{"beta1", &eve::beta1, ranges::share},
                  field{"beta2", &eve::beta2, ranges::share},
                  field{"beta3", &eve::beta3, ranges::share},
                  field{"epsilon", &eve::epsilon, ranges::not_negative},
                  field{"clipping", &eve::clipping, bounds{.low = 1}},
                  field{"lower_bound", &eve::lower_bound, ranges::finite},
                  field{"weight_decay", &eve::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adam, scale_by_loss_change, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon},
            scale_by_loss_change{beta3, clipping, lower_bound}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
