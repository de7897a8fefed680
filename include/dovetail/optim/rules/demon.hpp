// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// b <- k b + u; u <- b, with k = momentum r / ((1 - momentum) + momentum r), r = max(1 - (t - 1) / steps, 0): momentum
/// that is worth less of what has come, the fewer steps are left (Chen et al., Demon: Improved Neural Network Training
/// with Momentum Decay, ICASSP 2022).
struct accumulate_decaying_momentum {
  using kind = elementwise;
  float momentum = 0.9f;        ///< share of the momentum that the first step keeps
  std::int64_t steps = 100000;  ///< of the whole training; no momentum is left behind them
  static constexpr auto describe() {
    return policy{"accumulate_decaying_momentum",
                  field{"momentum", &accumulate_decaying_momentum::momentum, ranges::share},
                  field{"steps", &accumulate_decaying_momentum::steps, ranges::count}};
  }
  static constexpr std::array slots{"momentum_buffer"};

  struct kernel {
    float momentum = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& b) const {
      b = momentum * b + u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T b) const {
      return b;
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    double const left = t > steps ? 0 : 1 - static_cast<double>(t - 1) / static_cast<double>(steps),
                 m = static_cast<double>(momentum);
    return {static_cast<float>(m * left / (1 - m + m * left))};
  }
};

/// Demon (Chen et al., ICASSP 2022): SGD whose momentum falls to 0 with the end of the training, so that the rate need
/// not. 1 pass, 20 bytes.
struct demon {
  schedule lr = 1e-3f;
  float momentum = 0.9f;        ///< share of the momentum that the first step keeps
  std::int64_t steps = 100000;  ///< of the whole training
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"demon", field{"lr", &demon::lr}, field{"momentum", &demon::momentum, ranges::share},
                  field{"steps", &demon::steps, ranges::count},
                  field{"weight_decay", &demon::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, accumulate_decaying_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_decaying_momentum{momentum, steps},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
