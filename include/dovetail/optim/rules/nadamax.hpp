// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Nadam's momentum over AdaMax's norm: m <- b1 m + (1 - b1) u; n <- max(b2 n, |u|); u <- (c0 u + c1 m) / (n +
/// epsilon), c0 and c1 as in scale_by_nadam (Dozat, Incorporating Nesterov Momentum into Adam, 2016; m keeps b1 as in
/// PyTorch's NAdam, where the paper has the step's momentum).
struct scale_by_nadamax {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_nadamax", field{"beta1", &scale_by_nadamax::beta1, ranges::share},
                  field{"beta2", &scale_by_nadamax::beta2, ranges::share},
                  field{"epsilon", &scale_by_nadamax::epsilon, ranges::not_negative},
                  field{"momentum_decay", &scale_by_nadamax::momentum_decay, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_inf"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, gradient_weight = 0, momentum_weight = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& n) const {
      m = beta1 * m + one_minus_beta1 * u;
      n = simd::max(beta2 * n, simd::abs(u));
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T n) const {
      return (gradient_weight * u + momentum_weight * m) / (n + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    auto const shares = detail::nesterov_shares(beta1, momentum_decay, t);
    return {beta1,
            detail::complement(beta1),
            beta2,
            shares.gradient_weight,
            shares.momentum_weight,
            detail::least_epsilon(epsilon)};
  }
};

/// NadaMax (Dozat, ICLR workshop 2016): AdaMax with Nesterov's momentum, whose strength grows with the steps. 1 pass,
/// 28 bytes.
struct nadamax {
  schedule lr = 1e-3f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;  ///< share of the largest |g| that a step keeps
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;  ///< how fast the momentum grows to beta1
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"nadamax",
                  field{"lr", &nadamax::lr},
                  field{"beta1", &nadamax::beta1, ranges::share},
                  field{"beta2", &nadamax::beta2, ranges::share},
                  field{"epsilon", &nadamax::epsilon, ranges::not_negative},
                  field{"momentum_decay", &nadamax::momentum_decay, ranges::not_negative},
                  field{"weight_decay", &nadamax::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_nadamax, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_nadamax{beta1, beta2, epsilon, momentum_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
