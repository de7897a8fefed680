// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/stage.hpp>

// Momentum beside Polyak's and Nesterov's. u is the update that arrives, t the step from 1; all operations are
// elementwise.

namespace dovetail::optim {

/// u <- (alpha + beta) u - beta (the u of before), in the first step alpha u: the last change of the update is expected
/// to come again (Mokhtari et al., A Unified Analysis of Extra-gradient and Optimistic Gradient Methods, AISTATS 2020).
/// Behind a direction it makes that optimistic.
struct extrapolate_from_past {
  float alpha = 1;  ///< weight of the update
  float beta = 1;   ///< weight of its change since the step before
  static constexpr auto describe() {
    return policy{"extrapolate_from_past", field{"alpha", &extrapolate_from_past::alpha, ranges::finite},
                  field{"beta", &extrapolate_from_past::beta, ranges::finite}};
  }
  static constexpr std::array slots{"previous_update"};

  struct kernel {
    float alpha = 0, beta = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& before) const {
      T const change = beta * (u - before);
      before = u;
      return alpha * u + change;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {alpha, t == 1 ? 0.0f : beta}; }
};

/// b <- k b + u; u <- b, with k = momentum r / ((1 - momentum) + momentum r), r = max(1 - (t - 1) / steps, 0): momentum
/// that is worth less of what has come, the fewer steps are left (Chen et al., Demon: Improved Neural Network Training
/// with Momentum Decay, ICASSP 2022).
struct accumulate_decaying_momentum {
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

}  // namespace dovetail::optim
