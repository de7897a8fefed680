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
#include <dovetail/optim/directions/corrections.hpp>
#include <dovetail/optim/stage.hpp>

// Directions that come from online learning, where rates follow from what has been seen. u is the update that arrives,
// w the weight, t the step from 1. The weights before the first step are w0. All norms, as in |u|^2, are
// over all tensors.

namespace dovetail::optim {

/// Ends a chain as FTRL-Proximal does: q = (sqrt(n + u^2) - sqrt(n)) / lr; z <- z + u - q w; n <- n + u^2; the weight
/// becomes 0 where |z| <= l1, elsewhere -(z - sign(z) l1) / D, D = (beta + sqrt(n)) / lr + l2 (McMahan et al., Ad Click
/// Prediction: a View from the Trenches, KDD 2013, algorithm 1). z begins such that the first weights stay where they
/// are without a gradient; the paper's are 0. The slot keeps not z but lr (z + D w), the dual variable minus its
/// projection, which stays small: nothing large cancels in it.
struct follow_regularized_leader {
  float lr = 0.1f;  ///< alpha of the paper; a number, no schedule
  float beta = 1;   ///< in units of the gradient: the larger, the smaller the first steps
  float l1 = 0, l2 = 0;
  static constexpr auto describe() {
    return policy{"follow_regularized_leader", field{"lr", &follow_regularized_leader::lr, ranges::not_negative},
                  field{"beta", &follow_regularized_leader::beta, ranges::positive},
                  field{"l1", &follow_regularized_leader::l1, ranges::not_negative},
                  field{"l2", &follow_regularized_leader::l2, ranges::not_negative}};
  }
  static constexpr std::array slots{"unanswered", "n"};
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0, beta = 0, l1 = 0, first = 0;  ///< beta with l2, both times lr, as is l1
    template <class T>
    DOVETAIL_INLINE constexpr T step(T w, T u, T& y, T& n) const {
      y = simd::select(T(first) > 0.0f, -l1 * simd::sign(w), y) + lr * u;
      n = n + u * u;
      T const d = beta + simd::sqrt(n), z = y - d * w, bound = l1 * simd::sign(z);
      auto const zero = simd::abs(z) <= l1;  // not of a NaN, which must show
      T const change = simd::select(zero, -w, (bound - y) / d);
      y = simd::select(zero, z, bound);
      return change;
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    // A product that is exact in double precision: a device that fuses it leaves the host's bits.
    auto const with_l2 = static_cast<double>(beta) + static_cast<double>(lr) * static_cast<double>(l2);
    return {lr, static_cast<float>(with_l2), lr * l1, t == 1 ? 1.0f : 0.0f};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// b <- b + |u|^2 / b; u <- u / b (Wu, Ward & Bottou, WNGrad: Learn the Learning Rate in Gradient Descent, 2018).
struct scale_by_wngrad {
  float initial = 1;  ///< b before the first step: the inverse of the largest rate
  static constexpr auto describe() {
    return policy{"scale_by_wngrad", field{"initial", &scale_by_wngrad::initial, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"b"};
  constexpr double initial_scalar(std::size_t) const { return static_cast<double>(initial); }

  struct kernel {
    DOVETAIL_HD float factor(norms n, double& b) const {
      b += n.update * n.update / b;
      return static_cast<float>(1 / b);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// s <- s + |u|^2; u <- u / sqrt(s), s beginning as initial^2 (Ward, Wu & Bottou, AdaGrad Stepsizes: Sharp Convergence
/// over Nonconvex Landscapes, ICML 2019, algorithm 1).
struct scale_by_adagrad_norm {
  float initial = 1e-2f;  ///< b_0 of the paper, in units of the gradient's norm
  static constexpr auto describe() {
    return policy{"scale_by_adagrad_norm", field{"initial", &scale_by_adagrad_norm::initial, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"sum"};
  constexpr double initial_scalar(std::size_t) const {
    return static_cast<double>(initial) * static_cast<double>(initial);
  }

  struct kernel {
    DOVETAIL_HD float factor(norms n, double& sum) const {
      sum += n.update * n.update;
      return sum > 0 ? detail::factor_from(1 / std::sqrt(sum)) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

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
  float reach = 1e-6f;  ///< length of the first step, as a share of 1 + |w0|
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_dog", field{"reach", &scale_by_dog::reach, ranges::positive},
                  field{"epsilon", &scale_by_dog::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"p0"};
  static constexpr bool keeps_weights = true;
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

/// Distance over weighted gradients: r <- max(r, |w - w0|^2); s <- s + r |u|^2; u <- u r / (sqrt(s) + epsilon) (Khaled,
/// Mishchenko & Jin, DoWG Unleashed, NeurIPS 2023, algorithm 1).
struct scale_by_dowg {
  float initial_square = 1e-4f;  ///< r before the first step: the square of a distance
  float epsilon = 1e-4f;         ///< added to the root in the denominator
  static constexpr auto describe() {
    return policy{"scale_by_dowg", field{"initial_square", &scale_by_dowg::initial_square, ranges::positive},
                  field{"epsilon", &scale_by_dowg::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"p0"};
  static constexpr bool keeps_weights = true;
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

/// D-Adaptation of Adam: with e = d sqrt(1 - b2^t) / (1 - b1^t), k = sqrt(b2) and the s and v of before, r <- k r +
/// (1 - k) e <u, s / (sqrt(v) + epsilon)>; m <- b1 m + (1 - b1) e u; v <- b2 v + (1 - b2) u^2; s <- k s + (1 - k) e u;
/// u <- m / (sqrt(v) + epsilon) + weight_decay e w; d <- max(d, r / ((1 - k) |s|_1)), <> and |s|_1 over all tensors
/// (Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, ICML 2023, with the corrections of the authors'
/// program).
struct scale_by_dadapt_adam {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float initial_d = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_dadapt_adam",
                  field{"beta1", &scale_by_dadapt_adam::beta1, ranges::share},
                  field{"beta2", &scale_by_dadapt_adam::beta2, ranges::share},
                  field{"epsilon", &scale_by_dadapt_adam::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_dadapt_adam::weight_decay, ranges::not_negative},
                  field{"initial_d", &scale_by_dadapt_adam::initial_d, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "s", "scaled_s"};
  static constexpr bool exact_slots = true;
  static constexpr std::array scalars{"d", "numerator"};
  constexpr double initial_scalar(std::size_t i) const { return i == 0 ? static_cast<double>(initial_d) : 0.0; }

  struct kernel {
    float beta1 = 0, beta2 = 0, rest2 = 0, keep = 0, epsilon = 0, weight_decay = 0;
    double correct = 1, rest1 = 0, fresh = 0;  ///< 1 - b1, 1 - k
    float gain1 = 0, gain2 = 0, decay = 0;     ///< (1 - b1) e, (1 - k) e, weight_decay e
    DOVETAIL_HD constexpr void begin(double d, double) {
      gain1 = static_cast<float>(rest1 * correct * d);
      gain2 = static_cast<float>(fresh * correct * d);
      decay = static_cast<float>(static_cast<double>(weight_decay) * correct * d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& s, T& scaled) const {
      scaled = s / (simd::sqrt(v) + epsilon);
      m = beta1 * m + gain1 * u;
      v = beta2 * v + rest2 * u * u;
      s = keep * s + gain2 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T, T u, T, T, T s, T scaled) const {
      return {product<T>{u, scaled}, product<T>{simd::abs(s), T(1.0f)}};
    }
    DOVETAIL_HD float factor(std::array<double, 2> const& sums, double& d, double& r) const {
      r = static_cast<double>(keep) * r + fresh * correct * d * sums[0];
      double const estimate = sums[1] > 0 ? r / (fresh * sums[1]) : 0;
      if (estimate > d) d = estimate;
      return 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T v, T, T, T) const {
      return m / (simd::sqrt(v) + epsilon) + decay * w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b2 = static_cast<double>(beta2), k = std::sqrt(b2);
    return {beta1,
            beta2,
            detail::complement(beta2),
            static_cast<float>(k),
            detail::root_epsilon(epsilon),
            weight_decay,
            detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t)),
            1 - static_cast<double>(beta1),
            1 - k};
  }
};

/// Ends a chain by betting coins, one game per weight: L <- max(L, |u|, epsilon); G <- G + |u|; R <-
/// max(R - u (w - w0), 0); C <- C - u; the weight becomes w0 + C (L + R) / (L max(G + L, alpha L)) (Orabona & Tommasi,
/// Training Deep Networks without Learning Rates Through Coin Betting, NeurIPS 2017, algorithm 2).
struct bet_coins {
  float alpha = 100;      ///< the larger, the smaller the bets of the first steps
  float epsilon = 1e-8f;  ///< the largest gradient counts as at least this
  static constexpr auto describe() {
    return policy{"bet_coins", field{"alpha", &bet_coins::alpha, ranges::positive},
                  field{"epsilon", &bet_coins::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"p0", "gradient_sum", "largest", "absolute_sum", "reward"};
  static constexpr bool keeps_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float alpha = 0, epsilon = 0, first = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& w0, T& c, T& l, T& g, T& r) const {
      w0 = simd::select(T(first) > 0.0f, w, w0);
      l = simd::max(simd::max(l, simd::abs(u)), T(epsilon));
      g = g + simd::abs(u);
      r = simd::max(r - u * (w - w0), T(0.0f));
      c = c - u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T w0, T c, T l, T g, T r) const {
      return w0 - w + c / simd::max(g + l, alpha * l) * ((l + r) / l);
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    return {alpha, detail::least_epsilon(epsilon), t == 1 ? 1.0f : 0.0f};
  }
};

}  // namespace dovetail::optim
