// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The weights before the first step are w0. All norms,
// as in |u|^2, are over all tensors.

namespace dovetail::optim {

/// Ends a chain by betting coins, one game per weight: L <- max(L, |u|, epsilon); G <- G + |u|; R <-
/// max(R - u (w - w0), 0); C <- C - u; the weight becomes w0 + C (L + R) / (L max(G + L, alpha L)) (Orabona & Tommasi,
/// Training Deep Networks without Learning Rates Through Coin Betting, NeurIPS 2017, algorithm 2).
struct bet_coins {
  using kind = elementwise;
  float alpha = 100;      ///< the larger, the smaller the bets of the first steps
  float epsilon = 1e-8f;  ///< the largest gradient counts as at least this
  static constexpr auto describe() {
    return policy{"bet_coins", field{"alpha", &bet_coins::alpha, ranges::positive},
                  field{"epsilon", &bet_coins::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"p0", "gradient_sum", "largest", "absolute_sum", "reward"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float alpha = 0, epsilon = 0, first = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& w0, T& c, T& l, T& g, T& r) const {
      w0 = simd::select(T(first) > 0.0f, w, w0);
      l = simd::max(simd::max(l, simd::abs(u)), T(epsilon));
      g = g + simd::abs(u);
      r = simd::max(r - u * (w - w0), T(0.0f));
      c = c - u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T w0, T c, T l, T g, T r) const {
      return w0 - w + c / simd::max(g + l, alpha * l) * ((l + r) / l);
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    return {alpha, detail::least_epsilon(epsilon), t == 1 ? 1.0f : 0.0f};
  }
};

/// COCOB (Orabona & Tommasi, NeurIPS 2017, algorithm 2): each weight bets on its gradient's sign with what it has won
/// so far; there is no rate. 1 pass, 52 bytes.
struct cocob {
  float alpha = 100;      ///< the larger, the smaller the bets of the first steps
  float epsilon = 1e-8f;  ///< what counts as a gradient before there is one
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"cocob", field{"alpha", &cocob::alpha, ranges::positive},
                  field{"epsilon", &cocob::epsilon, ranges::not_negative},
                  field{"weight_decay", &cocob::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, bet_coins>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {add_decayed_weights{weight_decay}, bet_coins{alpha, epsilon}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
