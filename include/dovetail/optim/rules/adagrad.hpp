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

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// s <- s + u^2; u <- u / (sqrt(s) + epsilon) (Duchi et al., JMLR 2011, section 1.1, diagonal).
struct scale_by_adagrad {
  using kind = elementwise;
  float initial_accumulator = 0;
  float epsilon = 1e-10f;
  static constexpr auto describe() {
    return policy{"scale_by_adagrad",
                  field{"initial_accumulator", &scale_by_adagrad::initial_accumulator, ranges::not_negative},
                  field{"epsilon", &scale_by_adagrad::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"sum"};
  constexpr float initial_value(std::size_t) const { return initial_accumulator; }

  struct kernel {
    float epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& s) const {
      s = s + u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T s) const {
      return u / (simd::sqrt(s) + epsilon);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {detail::root_epsilon(epsilon)}; }
};

/// AdaGrad (Duchi et al., JMLR 2011), gradients over the root of the sum of all their squares so far:
/// s <- s + g'^2, w <- w - lr g' / (sqrt(s) + epsilon), g' = g + weight_decay w. PyTorch's lr_decay is the schedule
/// inverse_time. 1 pass, 20 bytes.
struct adagrad {
  schedule lr = 1e-2f;
  float initial_accumulator = 0;  ///< the sum before the first step
  float epsilon = 1e-10f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adagrad", field{"lr", &adagrad::lr},
                  field{"initial_accumulator", &adagrad::initial_accumulator, ranges::not_negative},
                  field{"epsilon", &adagrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &adagrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adagrad, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adagrad{initial_accumulator, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
