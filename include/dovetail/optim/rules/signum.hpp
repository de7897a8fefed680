// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// u <- sign(u), 0 where u is 0 (Bernstein et al., signSGD, ICML 2018).
struct scale_by_sign {
  using kind = elementwise;
  static constexpr auto describe() { return policy<scale_by_sign>{"scale_by_sign"}; }
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return simd::sign(u);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// signSGD (Bernstein et al., ICML 2018), a step of lr in every weight:
/// w <- w - lr (sign(g) + weight_decay w). 1 pass, 12 bytes.
struct sign_sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"sign_sgd", field{"lr", &sign_sgd::lr},
                  field{"weight_decay", &sign_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_sign{}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Signum (Bernstein et al., ICML 2018, algorithm 2), the sign of an average of gradients:
/// m <- momentum m + (1 - momentum) g, w <- w - lr (sign(m) + weight_decay w). 1 pass, 20 bytes.
struct signum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"signum", field{"lr", &signum::lr}, field{"momentum", &signum::momentum, ranges::share},
                  field{"weight_decay", &signum::weight_decay, ranges::not_negative}};
  }

  using rule = chain<accumulate_average, scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {accumulate_average{momentum}, scale_by_sign{}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
