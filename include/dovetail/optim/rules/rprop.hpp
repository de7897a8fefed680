// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// s <- clamp(s grow) where u keeps the sign of the gradient before, clamp(s shrink) where it has turned (that gradient
/// is then forgotten); u <- sign(u) s (Riedmiller & Braun, ICNN 1993, without backtracking).
struct scale_by_rprop {
  using kind = elementwise;
  float initial_step = 1e-2f;
  float shrink = 0.5f, grow = 1.2f;
  float smallest_step = 1e-6f, largest_step = 50;
  static constexpr auto describe() {
    return policy{"scale_by_rprop",
                  field{"initial_step", &scale_by_rprop::initial_step, ranges::positive},
                  field{"shrink", &scale_by_rprop::shrink, ranges::positive_unit},
                  field{"grow", &scale_by_rprop::grow, ranges::count},
                  field{"smallest_step", &scale_by_rprop::smallest_step, ranges::not_negative},
                  field{"largest_step", &scale_by_rprop::largest_step, ranges::positive}};
  }
  static constexpr std::array slots{"prev", "step_size"};
  constexpr float initial_value(std::size_t slot) const { return slot == 1 ? initial_step : 0; }

  struct kernel {
    float shrink = 0, grow = 0, smallest = 0, largest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& before, T& s) const {
      T const turn = u * before;
      T const factor = simd::select(turn > 0.0f, T(grow), simd::select(turn < 0.0f, T(shrink), T(1.0f)));
      s = simd::max(simd::min(s * factor, T(largest)), T(smallest));
      before = simd::select(turn < 0.0f, T(0.0f), u);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T before, T s) const {
      return simd::sign(before) * s;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {shrink, grow, smallest_step, largest_step}; }
  void check() const {
    require(smallest_step <= largest_step, "scale_by_rprop: smallest_step is ", smallest_step, ", largest_step ",
            largest_step, ": it cannot be below");
  }
};

/// Rprop (Riedmiller & Braun, 1993; the variant that forgets a gradient whose sign has turned, as in PyTorch): each
/// weight has a step of its own, which grows while the gradient keeps its sign. For full batches. `lr` scales all
/// steps. 1 pass, 28 bytes.
struct rprop {
  float initial_step = 1e-2f;                      ///< of every weight, in units of the weights
  float shrink = 0.5f;                             ///< factor of a step when the sign of the gradient has turned
  float grow = 1.2f;                               ///< factor of a step when it has stayed
  float smallest_step = 1e-6f, largest_step = 50;  ///< bounds of every step
  schedule lr = 1;                                 ///< factor of all steps
  static constexpr auto describe() {
    return policy{"rprop",
                  field{"initial_step", &rprop::initial_step, ranges::positive},
                  field{"shrink", &rprop::shrink, ranges::positive_unit},
                  field{"grow", &rprop::grow, ranges::count},
                  field{"smallest_step", &rprop::smallest_step, ranges::not_negative},
                  field{"largest_step", &rprop::largest_step, ranges::positive},
                  field{"lr", &rprop::lr}};
  }

  using rule = chain<scale_by_rprop, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_rprop{initial_step, shrink, grow, smallest_step, largest_step}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
