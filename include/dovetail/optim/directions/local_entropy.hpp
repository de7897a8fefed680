// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/corrections.hpp>
#include <dovetail/optim/stage.hpp>

namespace dovetail::optim {

/// Ends a chain as Entropy-SGD does. The weights w wander about a centre x for `steps` steps: w <- w - lr (u - gamma (x
/// - w)), mu <- (1 - alpha) mu + alpha w; the last of them moves the centre, x <- x - outer_lr (x - mu), and puts w and
/// mu back there. gamma = min(scope (1 + scope_growth)^k, 1 / lr), k counting centres from 0 (Chaudhari et al.,
/// Entropy-SGD: Biasing Gradient Descent Into Wide Valleys, ICLR 2017, algorithm 1; outer_lr stands for its eta gamma).
/// Langevin's noise is a stage in front: add_noise.
struct ascend_local_entropy {
  float lr = 0.1f;             ///< rate of the steps about the centre
  float outer_lr = 1;          ///< share of the way to mu that the centre moves
  std::int64_t steps = 20;     ///< L: gradients for each move of the centre
  float scope = 1e-4f;         ///< gamma of the first centre: how strongly it holds the weights
  float scope_growth = 1e-3f;  ///< by how much gamma grows from one centre to the next
  float alpha = 0.75f;         ///< share of the weights that a step brings into mu
  static constexpr auto describe() {
    return policy{"ascend_local_entropy",
                  field{"lr", &ascend_local_entropy::lr, ranges::not_negative},
                  field{"outer_lr", &ascend_local_entropy::outer_lr, ranges::not_negative},
                  field{"steps", &ascend_local_entropy::steps, ranges::count},
                  field{"scope", &ascend_local_entropy::scope, ranges::not_negative},
                  field{"scope_growth", &ascend_local_entropy::scope_growth, ranges::not_negative},
                  field{"alpha", &ascend_local_entropy::alpha, ranges::unit}};
  }
  static constexpr std::array slots{"centre", "mean"};
  static constexpr bool keeps_weights = true;
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
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const growth = 1 + static_cast<double>(scope_growth), most = 1 / static_cast<double>(lr);
    double const gamma = static_cast<double>(scope) * detail::power(growth, (t - 1) / steps);
    return {t == 1 ? 1.0f : 0.0f,
            t % steps == 0 ? 1.0f : 0.0f,
            lr,
            outer_lr,
            static_cast<float>(gamma < most ? gamma : most),  // beyond, a step would end behind the centre
            alpha};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
  /// What to evaluate: the centre.
  static constexpr float average(float, float x) { return x; }
};

}  // namespace dovetail::optim
