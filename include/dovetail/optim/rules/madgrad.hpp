// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1. The weights before the first step are w0.

namespace dovetail::optim {

/// Ends a chain as MADGRAD does, with weights of steps that grow, l = lr sqrt(t): s <- s + l u; v <- v + l u^2; z = w0
/// - s / (cbrt(v) + epsilon); w <- momentum w + (1 - momentum) z (Defazio & Jelassi, Adaptivity without Compromise: A
/// Momentumized, Adaptive, Dual Averaged Gradient Method for Stochastic Optimization, JMLR 2022, algorithm 1).
struct scale_by_madgrad {
  using kind = elementwise;
  schedule lr = 1e-2f;
  float momentum = 0.9f;
  float epsilon = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_madgrad", field{"lr", &scale_by_madgrad::lr},
                  field{"momentum", &scale_by_madgrad::momentum, ranges::share},
                  field{"epsilon", &scale_by_madgrad::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"s", "grad_sum_sq", "x0"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float first = 0, weight = 0, share = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T w, T u, T& s, T& v, T& w0) const {
      w0 = simd::select(T(first) > 0.0f, w, w0);
      s = s + weight * u;
      v = v + (weight * u) * u;
      T const z = w0 - s / (simd::pow(v, 1.0f / 3) + epsilon);
      return share * (z - w);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t, float rate) const {
    double const weight = static_cast<double>(rate) * std::sqrt(static_cast<double>(t));
    return {t == 1 ? 1.0f : 0.0f, static_cast<float>(weight), detail::complement(momentum),
            detail::least_epsilon(epsilon)};
  }
  float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// MADGRAD (Defazio & Jelassi, JMLR 2022, algorithm 1): the weights follow where all gradients so far, later ones with
/// more weight, lead from the first weights, over the cube root of the sum of their squares. The authors'
/// program also adds epsilon to the rate. 1 pass, 36 bytes.
struct madgrad {
  schedule lr = 1e-2f;
  float momentum = 0.9f;  ///< share of the way to where the gradients lead that a step leaves
  float epsilon = 1e-6f;  ///< added to the cube root in the denominator
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"madgrad", field{"lr", &madgrad::lr}, field{"momentum", &madgrad::momentum, ranges::share},
                  field{"epsilon", &madgrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &madgrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_madgrad>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_madgrad{lr, momentum, epsilon}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
