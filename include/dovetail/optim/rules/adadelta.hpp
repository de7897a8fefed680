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

/// v <- rho v + (1 - rho) u^2; d = u sqrt(a + epsilon) / sqrt(v + epsilon) with the a of before;
/// a <- rho a + (1 - rho) d^2; u <- d (Zeiler, ADADELTA, 2012, algorithm 1).
struct scale_by_adadelta {
  using kind = elementwise;
  float rho = 0.9f;
  float epsilon = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_adadelta", field{"rho", &scale_by_adadelta::rho, ranges::share},
                  field{"epsilon", &scale_by_adadelta::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"square_avg", "acc_delta"};

  struct kernel {
    float rho = 0, rest = 0, epsilon = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& v, T& a) const {
      v = rho * v + rest * u * u;
      T const d = simd::sqrt(a + epsilon) / simd::sqrt(v + least) * u;
      a = rho * a + rest * d * d;
      return d;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {rho, detail::complement(rho), epsilon, detail::least_epsilon(epsilon)};
  }
};

/// AdaDelta (Zeiler, 2012): steps in the units of the weights. 1 pass, 28 bytes.
struct adadelta {
  schedule lr = 1;
  float rho = 0.9f;       ///< share of both averages that a step keeps
  float epsilon = 1e-6f;  ///< added to both averages under their roots
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adadelta", field{"lr", &adadelta::lr}, field{"rho", &adadelta::rho, ranges::share},
                  field{"epsilon", &adadelta::epsilon, ranges::not_negative},
                  field{"weight_decay", &adadelta::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adadelta, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adadelta{rho, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
