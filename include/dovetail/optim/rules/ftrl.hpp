// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Ends a chain as FTRL-Proximal does: q = (sqrt(n + u^2) - sqrt(n)) / lr; z <- z + u - q w; n <- n + u^2; the weight
/// becomes 0 where |z| <= l1, elsewhere -(z - sign(z) l1) / D, D = (beta + sqrt(n)) / lr + l2 (McMahan et al., Ad Click
/// Prediction: a View from the Trenches, KDD 2013, algorithm 1). z begins such that the first weights stay where they
/// are without a gradient; the paper's are 0. The slot keeps not z but lr (z + D w), the dual variable minus its
/// projection, which stays small: nothing large cancels in it.
struct follow_regularized_leader {
  using kind = elementwise;
  float lr = 0.1f;  ///< alpha of the paper; a number, no schedule
  float beta = 1;   ///< in units of the gradient: the larger, the smaller the first steps
  float l1 = 0, l2 = 0;
  static constexpr auto describe() {
    return policy{"follow_regularized_leader", field{"lr", &follow_regularized_leader::lr, ranges::not_negative},
                  field{"beta", &follow_regularized_leader::beta, ranges::positive},
                  field{"l1", &follow_regularized_leader::l1, ranges::not_negative},
                  field{"l2", &follow_regularized_leader::l2, ranges::not_negative}};
  }
  static constexpr std::array slots{"unanswered", "n"};
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0, beta = 0, l1 = 0, first = 0;  ///< beta with l2, both times lr, as is l1
    template <class T>
    DOVETAIL_INLINE constexpr T step(T w, T u, T& y, T& n) const {
      y = simd::select(T(first) > 0.0f, -l1 * simd::sign(w), y) + lr * u;
      n = n + u * u;
      T const d = beta + simd::sqrt(n), z = y - d * w, bound = l1 * simd::sign(z);
      auto const zero = simd::abs(z) <= l1;  // not of a NaN, which must show
      T const change = simd::select(zero, -w, (bound - y) / d);
      y = simd::select(zero, z, bound);
      return change;
    }
  };
  constexpr kernel prepare(std::int64_t t, float rate) const {
    // A product that is exact in double precision: a device that fuses it leaves the host's bits.
    auto const with_l2 = static_cast<double>(beta) + static_cast<double>(rate) * static_cast<double>(l2);
    return {rate, static_cast<float>(with_l2), rate * l1, t == 1 ? 1.0f : 0.0f};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// FTRL-Proximal (McMahan et al., KDD 2013, algorithm 1), AdaGrad's steps with weights that stay 0 until they are worth
/// their cost. Without l1 and l2 it is AdaGrad with epsilon = beta. 1 pass, 28 bytes.
struct ftrl {
  float lr = 0.1f;  ///< alpha of the paper; a number, no schedule
  float beta = 1;   ///< in units of the gradient: the larger, the smaller the first steps
  float l1 = 0;     ///< the sum of gradients, less what steps have used up, that a weight needs to leave 0
  float l2 = 0;     ///< strength of the pull to 0, in units of gradient per weight
  static constexpr auto describe() {
    return policy{"ftrl", field{"lr", &ftrl::lr, ranges::not_negative}, field{"beta", &ftrl::beta, ranges::positive},
                  field{"l1", &ftrl::l1, ranges::not_negative}, field{"l2", &ftrl::l2, ranges::not_negative}};
  }

  using rule = chain<follow_regularized_leader>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {follow_regularized_leader{lr, beta, l1, l2}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
