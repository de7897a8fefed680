// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stage.hpp>

// Directions that depend on the loss of the step. u is the update that arrives, w the weight, t the step from 1. The
// loss of the step is f, which step_options::loss gives; <a, b> and |a|^2 are sums over all tensors.

namespace dovetail::optim {

/// u <- u min(max(f - lower_bound, 0) / (|u|^2 + epsilon), largest): Polyak's rate, bounded (Loizou et al., Stochastic
/// Polyak Step-size for SGD, AISTATS 2021, with c = 1). A zero gradient stays.
struct scale_by_polyak {
  float lower_bound = 0;  ///< of the loss
  float largest = 1;      ///< the largest rate
  float epsilon = 0;      ///< added to the denominator
  static constexpr auto describe() {
    return policy{"scale_by_polyak", field{"lower_bound", &scale_by_polyak::lower_bound, ranges::finite},
                  field{"largest", &scale_by_polyak::largest, ranges::positive},
                  field{"epsilon", &scale_by_polyak::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};

  struct kernel {
    float lower_bound = 0, largest = 0, epsilon = 0;
    double gap = 0;
    constexpr void evaluated(double loss) { gap = std::max(loss - static_cast<double>(lower_bound), 0.0); }
    DOVETAIL_HD float factor(norms n) const {
      double const d = n.update * n.update + static_cast<double>(epsilon);
      return d > 0 ? static_cast<float>(std::min(gap / d, static_cast<double>(largest))) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {lower_bound, largest, epsilon}; }
};

/// d <- beta d + (1 - beta) c from the second step on, c = |f - f'| / (min(f, f') - lower_bound), held within
/// [1 / clipping, clipping], f' the loss of the step before, d beginning at 1; u <- u / d (Hayashi, Koushik & Neubig,
/// Eve: A Gradient Based Optimization Method with Locally and Globally Adaptive Learning Rates, 2016, algorithm 1).
struct scale_by_loss_change {
  float beta = 0.999f;
  float clipping = 10;
  float lower_bound = 0;  ///< of the loss
  static constexpr auto describe() {
    return policy{"scale_by_loss_change", field{"beta", &scale_by_loss_change::beta, ranges::share},
                  field{"clipping", &scale_by_loss_change::clipping, bounds{.low = 1}},
                  field{"lower_bound", &scale_by_loss_change::lower_bound, ranges::finite}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"d", "loss"};
  static constexpr double initial_scalar(std::size_t i) { return i == 0 ? 1.0 : 0.0; }

  struct kernel {
    float beta = 0, clipping = 0, lower_bound = 0;
    bool first = false;
    double loss = 0;
    constexpr void evaluated(double f) { loss = f; }
    DOVETAIL_HD float factor(norms, double& d, double& before) const {
      if (!first) {
        double const limit = static_cast<double>(clipping), change = std::abs(loss - before),
                     above = std::min(loss, before) - static_cast<double>(lower_bound);
        double const c = above > 0 ? std::min(std::max(change / above, 1 / limit), limit) : limit;
        d = static_cast<double>(beta) * d + (1 - static_cast<double>(beta)) * c;
      }
      before = loss;
      return static_cast<float>(1 / d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {beta, clipping, lower_bound, t == 1}; }
};

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
    float beta = 0, fresh = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m) const {
      m = beta * m + fresh * u;
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
  kernel prepare(std::int64_t t) const {
    float const b = t == 1 ? 0.0f : beta;
    kernel k;
    k.keep = static_cast<double>(b);
    k.rest = 1 - static_cast<double>(b);
    k.rate = static_cast<double>(learning_rate(t));
    k.decay = static_cast<double>(weight_decay);
    k.lower_bound = static_cast<double>(lower_bound);
    k.beta = b;
    k.fresh = detail::complement(b);
    return k;
  }
  float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// Ends a chain as MoMo-Adam does: Adam's moments; D = sqrt(v^) + epsilon; f* and g as averages with b1, beginning at
/// 0; with e = 1 - b1^t, tau = min(lr / e, max((1 + lr weight_decay)(f* - e lower_bound - g) + <m, w>, 0) / <m, m /
/// D>); w <- (w - tau m / D) / (1 + lr weight_decay) (Schaipp et al., MoMo: Momentum Models for Adaptive
/// Learning Rates, ICML 2024).
struct descend_by_momo_adam {
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
    float correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      adam.advance(u, m, v);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T direction(T m, T v) const {
      return m / (correct2 * simd::sqrt(v) + epsilon);
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
  kernel prepare(std::int64_t t) const {
    kernel k;
    k.keep = static_cast<double>(beta1);
    k.rest = 1 - static_cast<double>(beta1);
    k.rate = static_cast<double>(learning_rate(t));
    k.decay = static_cast<double>(weight_decay);
    k.lower_bound = static_cast<double>(lower_bound);
    k.correct = detail::correction(beta1, t);
    k.adam = detail::moments_of(beta1, beta2);
    k.correct2 = detail::root_correction(beta2, t);
    k.epsilon = detail::root_epsilon(epsilon);
    return k;
  }
  float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

}  // namespace dovetail::optim
