// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// b <- beta b + (1 - beta) u; u <- (1 - nu) u + nu b (Ma & Yarats, Quasi-hyperbolic momentum, ICLR 2019, section 3).
struct scale_by_qhm {
  using kind = elementwise;
  float nu = 0.7f, beta = 0.999f;
  static constexpr auto describe() {
    return policy{"scale_by_qhm", field{"nu", &scale_by_qhm::nu, ranges::unit},
                  field{"beta", &scale_by_qhm::beta, ranges::share}};
  }
  static constexpr std::array slots{"momentum_buffer"};

  struct kernel {
    float nu = 0, gradient_weight = 0, beta = 0, rest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& b) const {
      b = beta * b + rest * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T b) const {
      return gradient_weight * u + nu * b;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {nu, detail::complement(nu), beta, detail::complement(beta)};
  }
};

/// QHM (Ma & Yarats, ICLR 2019, section 3), a mean of plain SGD and momentum: b <- beta b + (1 - beta) g',
/// w <- w - lr ((1 - nu) g' + nu b), g' = g + weight_decay w. 1 pass, 20 bytes.
struct qhm {
  schedule lr = 1e-3f;
  float nu = 0.7f;      ///< share of the momentum, rather than of this gradient, in the step
  float beta = 0.999f;  ///< share of the momentum that a step keeps
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"qhm", field{"lr", &qhm::lr}, field{"nu", &qhm::nu, ranges::unit},
                  field{"beta", &qhm::beta, ranges::share},
                  field{"weight_decay", &qhm::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_qhm, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_qhm{nu, beta}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
