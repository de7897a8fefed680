// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1. The loss of the step is f, which step_context::loss
// gives and train::trainer sets by itself; <a, b> and |a|^2 are sums over all tensors.

namespace dovetail::optim {

namespace detail {
/// What MoMo's rules have in common: a model of the loss along the momentum, max(a + <m, w' - w>, lower_bound), whose
/// step is lr or the one that reaches the bound, whichever is shorter.
struct momentum_model {
  double keep = 0, rest = 0, rate = 0, decay = 0, lower_bound = 0, correct = 1, loss = 0;
  constexpr void evaluated(double f) { loss = f; }
  /// From <u, w>, |m|^2 in the rule's norm and <m, w>: what m is multiplied by, and the share that decay takes of
  /// weights.
  DOVETAIL_HD std::array<float, 2> rates(std::array<double, 3> const& sums, double& average, double& gamma) const {
    average = keep * average + rest * loss;
    gamma = keep * gamma + rest * sums[0];
    double const shrink = 1 + rate * decay;
    double const gap = shrink * (average - lower_bound / correct - gamma) + sums[2];
    double const tau = sums[1] > 0 ? std::min(rate * correct, std::max(gap, 0.0) / sums[1]) : 0;
    return {static_cast<float>(tau / shrink), static_cast<float>(rate * decay / shrink)};
  }
};
}  // namespace detail

/// Ends a chain as MoMo does: m <- beta m + (1 - beta) u, and likewise f* of f and g of <u, w>, each beginning with its
/// first value; tau = min(lr, max((1 + lr weight_decay)(f* - lower_bound - g) + <m, w>, 0) / |m|^2); w <- (w -
/// tau m) / (1 + lr weight_decay) (Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates, ICML
/// 2024).
struct descend_by_momo {
  using kind = reducing;
  schedule lr = 1;  ///< the largest rate
  float beta = 0.9f;
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"descend_by_momo", field{"lr", &descend_by_momo::lr},
                  field{"beta", &descend_by_momo::beta, ranges::share},
                  field{"lower_bound", &descend_by_momo::lower_bound, ranges::finite},
                  field{"weight_decay", &descend_by_momo::weight_decay, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg"};
  static constexpr std::array scalars{"loss_avg", "inner_avg"};
  static constexpr bool ends_chain = true;

  struct kernel : detail::momentum_model {
    float beta = 0, gradient_weight = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m) const {
      m = beta * m + gradient_weight * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 3> measure(T w, T u, T m) const {
      return {product<T>{u, w}, square(m), product<T>{m, w}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 3> const& sums, double& average, double& gamma) const {
      return rates(sums, average, gamma);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T tau, T share) const {
      return -(tau * m) - share * w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t, float rate) const {
    float const b = t == 1 ? 0.0f : beta;
    kernel k;
    k.keep = static_cast<double>(b);
    k.rest = 1 - static_cast<double>(b);
    k.rate = static_cast<double>(rate);
    k.decay = static_cast<double>(weight_decay);
    k.lower_bound = static_cast<double>(lower_bound);
    k.beta = b;
    k.gradient_weight = detail::complement(b);
    return k;
  }
  float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// MoMo (Schaipp et al., ICML 2024): momentum whose rate is the one that a model of the loss along it asks for, at most
/// lr. Needs step_context::loss. 2 passes, 28 bytes.
struct momo {
  schedule lr = 1;         ///< the largest rate
  float beta = 0.9f;       ///< share of the averages of gradients and losses that a step keeps
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"momo", field{"lr", &momo::lr}, field{"beta", &momo::beta, ranges::share},
                  field{"lower_bound", &momo::lower_bound, ranges::finite},
                  field{"weight_decay", &momo::weight_decay, ranges::not_negative}};
  }

  using rule = chain<descend_by_momo>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {descend_by_momo{lr, beta, lower_bound, weight_decay}}; }
  DOVETAIL_OPTIMIZER
};

/// Ends a chain as MoMo-Adam does: Adam's moments; D = sqrt(v^) + epsilon; f* and g as averages with b1, beginning at
/// 0; with e = 1 - b1^t, tau = min(lr / e, max((1 + lr weight_decay)(f* - e lower_bound - g) + <m, w>, 0) / <m, m /
/// D>); w <- (w - tau m / D) / (1 + lr weight_decay) (Schaipp et al., MoMo: Momentum Models for Adaptive
/// Learning Rates, ICML 2024).
struct descend_by_momo_adam {
  using kind = reducing;
  schedule lr = 1e-2f;  ///< the largest rate
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"descend_by_momo_adam",
                  field{"lr", &descend_by_momo_adam::lr},
                  field{"beta1", &descend_by_momo_adam::beta1, ranges::share},
                  field{"beta2", &descend_by_momo_adam::beta2, ranges::share},
                  field{"epsilon", &descend_by_momo_adam::epsilon, ranges::not_negative},
                  field{"lower_bound", &descend_by_momo_adam::lower_bound, ranges::finite},
                  field{"weight_decay", &descend_by_momo_adam::weight_decay, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};
  static constexpr std::array scalars{"loss_avg", "inner_avg"};
  static constexpr bool ends_chain = true;

  struct kernel : detail::momentum_model {
    detail::moments adam{};
    float bias_correction2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      adam.advance(u, m, v);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T direction(T m, T v) const {
      return m / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 3> measure(T w, T u, T m, T v) const {
      return {product<T>{u, w}, product<T>{m, direction(m, v)}, product<T>{m, w}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 3> const& sums, double& average, double& gamma) const {
      return rates(sums, average, gamma);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T v, T tau, T share) const {
      return -(tau * direction(m, v)) - share * w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t, float rate) const {
    kernel k;
    k.keep = static_cast<double>(beta1);
    k.rest = 1 - static_cast<double>(beta1);
    k.rate = static_cast<double>(rate);
    k.decay = static_cast<double>(weight_decay);
    k.lower_bound = static_cast<double>(lower_bound);
    k.correct = detail::correction(beta1, t);
    k.adam = detail::moments_of(beta1, beta2);
    k.bias_correction2 = detail::root_correction(beta2, t);
    k.epsilon = detail::root_epsilon(epsilon);
    return k;
  }
  float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// MoMo-Adam (Schaipp et al., ICML 2024): Adam whose rate is the one that a model of the loss along its step asks for,
/// at most lr. Needs step_context::loss. 2 passes, 40 bytes.
struct momo_adam {
  schedule lr = 1e-2f;  ///< the largest rate
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float lower_bound = 0;   ///< of the loss
  float weight_decay = 0;  ///< decoupled, and part of the model
  static constexpr auto describe() {
    return policy{"momo_adam",
                  field{"lr", &momo_adam::lr},
                  field{"beta1", &momo_adam::beta1, ranges::share},
                  field{"beta2", &momo_adam::beta2, ranges::share},
                  field{"epsilon", &momo_adam::epsilon, ranges::not_negative},
                  field{"lower_bound", &momo_adam::lower_bound, ranges::finite},
                  field{"weight_decay", &momo_adam::weight_decay, ranges::not_negative}};
  }

  using rule = chain<descend_by_momo_adam>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {descend_by_momo_adam{lr, beta1, beta2, epsilon, lower_bound, weight_decay}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
