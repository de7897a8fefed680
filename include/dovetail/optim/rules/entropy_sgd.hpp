// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>
#include <dovetail/optim/stages/row_wise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Ends a chain as Entropy-SGD does. The weights w wander about a center x for `steps` steps: w <- w - lr (u - gamma (x
/// - w)), mu <- (1 - alpha) mu + alpha w; the last of them moves the center, x <- x - outer_lr (x - mu), and puts w and
/// mu back there. gamma = min(scope (1 + scope_growth)^k, 1 / lr), k counting centers from 0 (Chaudhari et al.,
/// Entropy-SGD: Biasing Gradient Descent Into Wide Valleys, ICLR 2017, algorithm 1; outer_lr stands for its eta gamma).
/// Langevin's noise is a stage in front: add_noise.
struct entropy_sgd_step {
  using kind = elementwise;
  float lr = 0.1f;             ///< rate of the steps about the center
  float outer_lr = 1;          ///< share of the way to mu that the center moves
  std::int64_t steps = 20;     ///< L: gradients for each move of the center
  float scope = 1e-4f;         ///< gamma of the first center: how strongly it holds the weights
  float scope_growth = 1e-3f;  ///< by how much gamma grows from one center to the next
  float alpha = 0.75f;         ///< share of the weights that a step brings into mu
  static constexpr auto describe() {
    return policy{"entropy_sgd_step",
                  field{"lr", &entropy_sgd_step::lr, ranges::not_negative},
                  field{"outer_lr", &entropy_sgd_step::outer_lr, ranges::not_negative},
                  field{"steps", &entropy_sgd_step::steps, ranges::count},
                  field{"scope", &entropy_sgd_step::scope, ranges::not_negative},
                  field{"scope_growth", &entropy_sgd_step::scope_growth, ranges::not_negative},
                  field{"alpha", &entropy_sgd_step::alpha, ranges::unit}};
  }
  static constexpr std::array slots{"center", "mean"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float first = 0, moves = 0, lr = 0, outer_lr = 0, gamma = 0, alpha = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T w, T u, T& x, T& mu) const {
      auto const begins = T(first) > 0.0f, ends = T(moves) > 0.0f;
      x = simd::select(begins, w, x);
      mu = simd::select(begins, w, mu);
      T const near = w - lr * (u - gamma * (x - w));
      mu = mu + alpha * (near - mu);
      x = simd::select(ends, x - outer_lr * (x - mu), x);
      mu = simd::select(ends, x, mu);
      return simd::select(ends, x, near) - w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t, float rate) const {
    double const growth = 1 + static_cast<double>(scope_growth), most = 1 / static_cast<double>(rate);
    double const gamma = static_cast<double>(scope) * detail::power(growth, (t - 1) / steps);
    return {t == 1 ? 1.0f : 0.0f,
            t % steps == 0 ? 1.0f : 0.0f,
            rate,
            outer_lr,
            static_cast<float>(gamma < most ? gamma : most),  // beyond, a step would end behind the center
            alpha};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
  /// What to evaluate: the center.
  static constexpr float average(float, float x) { return x; }
};

/// Entropy-SGD (Chaudhari et al., ICLR 2017, algorithm 1): SGD about a center, which moves to the mean of where that
/// has been, so that it ends in wide valleys; averaged_weights gives the center. Noise is optional: a chain with
/// add_noise in front. 1 pass, 28 bytes.
struct entropy_sgd {
  float lr = 0.1f;             ///< rate of the steps about the center; a number, no schedule
  float outer_lr = 1;          ///< share of the way to the mean that the center moves
  std::int64_t steps = 20;     ///< gradients for each move of the center
  float scope = 1e-4f;         ///< how strongly the first center holds the weights
  float scope_growth = 1e-3f;  ///< by how much that grows from one center to the next
  float alpha = 0.75f;         ///< share of the weights that a step brings into the mean
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"entropy_sgd",
                  field{"lr", &entropy_sgd::lr, ranges::not_negative},
                  field{"outer_lr", &entropy_sgd::outer_lr, ranges::not_negative},
                  field{"steps", &entropy_sgd::steps, ranges::count},
                  field{"scope", &entropy_sgd::scope, ranges::not_negative},
                  field{"scope_growth", &entropy_sgd::scope_growth, ranges::not_negative},
                  field{"alpha", &entropy_sgd::alpha, ranges::unit},
                  field{"weight_decay", &entropy_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, entropy_sgd_step>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, entropy_sgd_step{lr, outer_lr, steps, scope, scope_growth, alpha}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
