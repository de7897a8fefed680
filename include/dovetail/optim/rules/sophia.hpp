// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, t the step from 1. The slot `hessian_diagonal` is fed outside of the step, every few
// steps, by observations (optim::hessian_diagonal): a step stays one pass over memory.

namespace dovetail::optim {

/// Sophia's direction (Liu et al., ICLR 2024, algorithm 3): m <- b1 m + (1 - b1) u; u <- m / max(gamma h, epsilon),
/// clipped to [-clipping, clipping]. An observation of the diagonal makes h <- b2 h + (1 - b2) of it; before the first
/// one, and where the curvature is not positive, the step is clipped: the sign of the momentum.
struct scale_by_sophia {
  using kind = elementwise;
  float beta1 = 0.96f, beta2 = 0.99f;
  float gamma = 0.01f;
  float epsilon = 1e-12f;
  float clipping = 1;
  static constexpr auto describe() {
    return policy{"scale_by_sophia",
                  field{"beta1", &scale_by_sophia::beta1, ranges::share},
                  field{"beta2", &scale_by_sophia::beta2, ranges::share},
                  field{"gamma", &scale_by_sophia::gamma, ranges::not_negative},
                  field{"epsilon", &scale_by_sophia::epsilon, ranges::not_negative},
                  field{"clipping", &scale_by_sophia::clipping, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "hessian_diagonal"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, gamma = 0, epsilon = 0, clipping = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T&) const {
      m = beta1 * m + one_minus_beta1 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T h) const {
      return simd::max(simd::min(m / simd::max(gamma * h, T(epsilon)), T(clipping)), T(-clipping));
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {beta1, detail::complement(beta1), gamma, detail::least_epsilon(epsilon), clipping};
  }
  static constexpr std::size_t curvature_slot = 1;
  template <class T>
  DOVETAIL_HD T observed(T h, T estimate) const {
    return beta2 * h + detail::complement(beta2) * estimate;
  }
};

/// Sophia (Liu et al., ICLR 2024): momentum over the moving average of the Hessian's diagonal, clipped; weight decay is
/// decoupled. With Hutchinson's estimate it is Sophia-H, for which the paper takes gamma = 0.01; with
/// Gauss-Newton-Bartlett's (bartlett_diagonal) Sophia-G, gamma = 0.05; an observation every 10 steps. Without one, the
/// sign of the momentum. 1 pass, 24 bytes.
struct sophia {
  schedule lr = 1e-3f;
  float beta1 = 0.96f, beta2 = 0.99f;
  float gamma = 0.05f;     ///< share of the curvature that a step is divided by: how much of it is clipped
  float epsilon = 1e-12f;  ///< smallest curvature that is divided by
  float clipping = 1;      ///< rho: the longest step of one weight, before the rate
  float weight_decay = 0.1f;
  static constexpr auto describe() {
    return policy{"sophia",
                  field{"lr", &sophia::lr},
                  field{"beta1", &sophia::beta1, ranges::share},
                  field{"beta2", &sophia::beta2, ranges::share},
                  field{"gamma", &sophia::gamma, ranges::not_negative},
                  field{"epsilon", &sophia::epsilon, ranges::not_negative},
                  field{"clipping", &sophia::clipping, ranges::positive},
                  field{"weight_decay", &sophia::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sophia, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_sophia{beta1, beta2, gamma, epsilon, clipping}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
