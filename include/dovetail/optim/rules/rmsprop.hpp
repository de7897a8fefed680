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

/// v <- alpha v + (1 - alpha) u^2; u <- u / (sqrt(v) + epsilon) (Tieleman & Hinton, lecture 6.5, 2012).
struct scale_by_rms {
  using kind = elementwise;
  float alpha = 0.99f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_rms", field{"alpha", &scale_by_rms::alpha, ranges::share},
                  field{"epsilon", &scale_by_rms::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"square_avg"};

  struct kernel {
    float alpha = 0, rest = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v) const {
      v = alpha * v + rest * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v) const {
      return u / (simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {alpha, detail::complement(alpha), detail::root_epsilon(epsilon)};
  }
};

/// RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012), gradients over the root of an average of their squares:
/// v <- alpha v + (1 - alpha) g'^2, w <- w - lr g' / (sqrt(v) + epsilon), g' = g + weight_decay w. 1 pass, 20 bytes.
struct rmsprop {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of the average of squares that a step keeps
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop", field{"lr", &rmsprop::lr}, field{"alpha", &rmsprop::alpha, ranges::share},
                  field{"epsilon", &rmsprop::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_rms, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012) with momentum behind it:
/// v <- alpha v + (1 - alpha) g'^2, b <- momentum b + g' / (sqrt(v) + epsilon), w <- w - lr b, g' = g + weight_decay w.
/// 1 pass, 28 bytes.
struct rmsprop_momentum {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of the average of squares that a step keeps
  float momentum = 0.9f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop_momentum",
                  field{"lr", &rmsprop_momentum::lr},
                  field{"alpha", &rmsprop_momentum::alpha, ranges::share},
                  field{"momentum", &rmsprop_momentum::momentum, ranges::share},
                  field{"epsilon", &rmsprop_momentum::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop_momentum::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_rms, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// v <- alpha v + (1 - alpha) u^2; a <- alpha a + (1 - alpha) u; u <- u / (sqrt(v - a^2) + epsilon) (Graves, Generating
/// Sequences With Recurrent Neural Networks, 2013, equations 38 to 40). A variance that rounding made negative counts
/// as 0.
struct scale_by_centered_rms {
  using kind = elementwise;
  float alpha = 0.99f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_centered_rms", field{"alpha", &scale_by_centered_rms::alpha, ranges::share},
                  field{"epsilon", &scale_by_centered_rms::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"square_avg", "grad_avg"};
  static constexpr bool exact_slots = true;

  struct kernel {
    float alpha = 0, rest = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v, T& a) const {
      v = alpha * v + rest * u * u;
      a = alpha * a + rest * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v, T a) const {
      return u / (simd::sqrt(simd::max(v - a * a, T(0.0f))) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {alpha, detail::complement(alpha), detail::root_epsilon(epsilon)};
  }
};

/// Centered RMSprop (Graves, 2013, equations 38 to 45): divides by the square root of v - a^2, a the running mean of
/// gradients, with momentum behind it. 1 pass, 36 bytes.
struct rmsprop_centered {
  schedule lr = 1e-2f;
  float alpha = 0.99f;  ///< share of both averages that a step keeps
  float momentum = 0;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"rmsprop_centered",
                  field{"lr", &rmsprop_centered::lr},
                  field{"alpha", &rmsprop_centered::alpha, ranges::share},
                  field{"momentum", &rmsprop_centered::momentum, ranges::share},
                  field{"epsilon", &rmsprop_centered::epsilon, ranges::not_negative},
                  field{"weight_decay", &rmsprop_centered::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_centered_rms, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_centered_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
