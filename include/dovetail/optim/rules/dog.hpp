// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The weights before the first step are w0. All norms,
// as in |u|^2, are over all tensors.

namespace dovetail::optim {

namespace detail {
/// What DoG and DoWG measure: |u|^2, |w - w0|^2 and |w|^2, and the slot that keeps w0.
struct distance_and_gradient {
  float first = 0;
  template <class T>
  DOVETAIL_INLINE constexpr void advance(T w, T, T& w0) const {
    w0 = simd::select(T(first) > 0.0f, w, w0);
  }
  template <class T>
  DOVETAIL_INLINE constexpr std::array<product<T>, 3> measure(T w, T u, T w0) const {
    return {square(u), square(w - w0), square(w)};
  }
  template <class T>
  DOVETAIL_INLINE constexpr T emit(T, T u, T, T factor) const {
    return factor * u;
  }
};
}  // namespace detail

/// Distance over gradients: r <- max(r, |w - w0|), r beginning as reach (1 + |w0|); s <- s + |u|^2; u <- u r /
/// sqrt(s + epsilon) (Ivgi, Hinder & Carmon, DoG is SGD's Best Friend, ICML 2023).
struct scale_by_dog {
  using kind = reducing;
  float reach = 1e-6f;  ///< length of the first step, as a share of 1 + |w0|
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_dog", field{"reach", &scale_by_dog::reach, ranges::positive},
                  field{"epsilon", &scale_by_dog::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"p0"};
  static constexpr bool slots_hold_weights = true;
  static constexpr std::array scalars{"distance", "sum"};

  struct kernel : detail::distance_and_gradient {
    float reach = 0, epsilon = 0;
    DOVETAIL_HD float factor(std::array<double, 3> const& sums, double& distance, double& sum) const {
      if (first > 0) distance = static_cast<double>(reach) * (1 + std::sqrt(sums[2]));
      distance = std::max(distance, std::sqrt(sums[1]));
      sum += sums[0];
      double const d = std::sqrt(sum + static_cast<double>(epsilon));
      return d > 0 ? detail::factor_from(distance / d) : 1.0f;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {{t == 1 ? 1.0f : 0.0f}, reach, epsilon}; }
};

/// DoG, distance over gradients (Ivgi, Hinder & Carmon, ICML 2023): SGD whose rate is how far the weights have come
/// over the root of the sum of squared gradients' norms; its authors use an average of the weights. 2 passes, 28 bytes.
struct dog {
  schedule lr = 1;        ///< factor of the rate that is found
  float reach = 1e-6f;    ///< length of the first step, as a share of 1 + |w|
  float epsilon = 1e-8f;  ///< added under the root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"dog", field{"lr", &dog::lr}, field{"reach", &dog::reach, ranges::positive},
                  field{"epsilon", &dog::epsilon, ranges::not_negative},
                  field{"weight_decay", &dog::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_dog, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_dog{reach, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Distance over weighted gradients: r <- max(r, |w - w0|^2); s <- s + r |u|^2; u <- u r / (sqrt(s) + epsilon) (Khaled,
/// Mishchenko & Jin, DoWG Unleashed, NeurIPS 2023, algorithm 1).
struct scale_by_dowg {
  using kind = reducing;
  float initial_square = 1e-4f;  ///< r before the first step: the square of a distance
  float epsilon = 1e-4f;         ///< added to the root in the denominator
  static constexpr auto describe() {
    return policy{"scale_by_dowg", field{"initial_square", &scale_by_dowg::initial_square, ranges::positive},
                  field{"epsilon", &scale_by_dowg::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"p0"};
  static constexpr bool slots_hold_weights = true;
  static constexpr std::array scalars{"distance_sq", "sum"};
  constexpr double initial_scalar(std::size_t i) const { return i == 0 ? static_cast<double>(initial_square) : 0.0; }

  struct kernel : detail::distance_and_gradient {
    float epsilon = 0;
    DOVETAIL_HD float factor(std::array<double, 3> const& sums, double& distance, double& sum) const {
      distance = std::max(distance, sums[1]);
      sum += distance * sums[0];
      double const d = std::sqrt(sum) + static_cast<double>(epsilon);
      return d > 0 ? detail::factor_from(distance / d) : 1.0f;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {{t == 1 ? 1.0f : 0.0f}, epsilon}; }
};

/// DoWG, distance over weighted gradients (Khaled, Mishchenko & Jin, NeurIPS 2023, algorithm 1): DoG with later
/// gradients, taken farther away, counting more. 2 passes, 28 bytes.
struct dowg {
  schedule lr = 1;               ///< factor of the rate that is found
  float initial_square = 1e-4f;  ///< square of the first guess of the distance
  float epsilon = 1e-4f;         ///< added to the root in the denominator
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"dowg", field{"lr", &dowg::lr}, field{"initial_square", &dowg::initial_square, ranges::positive},
                  field{"epsilon", &dowg::epsilon, ranges::not_negative},
                  field{"weight_decay", &dowg::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_dowg, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_dowg{initial_square, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
