// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/stage.hpp>

// Directions that depend on sums over each tensor, or over all, beyond the norms of reducing_stages.hpp. u is the
// update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// u <- u / |u|, norms of each tensor; a tensor of zeros stays.
struct normalize_per_tensor {
  static constexpr auto describe() { return policy<normalize_per_tensor>{"normalize_per_tensor"}; }
  static constexpr reduction needs{.per_tensor = true};

  struct kernel {
    DOVETAIL_HD float factor(norms n) const { return n.update > 0 ? detail::factor_from(1 / n.update) : 1.0f; }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// v <- beta v + (1 - beta) |u|^2, one number per tensor, in the first step |u|^2; u <- u / (sqrt(v) + epsilon)
/// (Ginsburg et al., NovoGrad, 2019, algorithm 1).
struct scale_by_layer_rms {
  float beta = 0.98f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_layer_rms", field{"beta", &scale_by_layer_rms::beta, ranges::share},
                  field{"epsilon", &scale_by_layer_rms::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true};
  static constexpr std::array scalars{"exp_avg_sq"};

  struct kernel {
    float beta = 0, epsilon = 0;
    bool first = false;
    DOVETAIL_HD float factor(norms n, double& v) const {
      double const square = n.update * n.update, b = static_cast<double>(beta);
      v = first ? square : b * v + (1 - b) * square;
      double const d = std::sqrt(v) + static_cast<double>(epsilon);
      return d > 0 ? detail::factor_from(1 / d) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {beta, epsilon, t == 1}; }
};

/// LARC, LARS that only lowers the rate (NVIDIA Apex, 2018): u <- min(r / lr, 1) (u + weight_decay w) with r =
/// trust_coefficient |w| / (|u| + weight_decay |w| + epsilon), norms of each tensor, lr the rate that the chain ends
/// with.
struct scale_by_clipped_lars_trust_ratio {
  float lr = 0.1f;                  ///< the rate that the chain ends with
  float trust_coefficient = 0.02f;  ///< length of a step below that rate, as a share of |w|
  float weight_decay = 0;           ///< share of the weight that is added
  float epsilon = 1e-8f;            ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"scale_by_clipped_lars_trust_ratio",
                  field{"lr", &scale_by_clipped_lars_trust_ratio::lr, ranges::not_negative},
                  field{"trust_coefficient", &scale_by_clipped_lars_trust_ratio::trust_coefficient, ranges::positive},
                  field{"weight_decay", &scale_by_clipped_lars_trust_ratio::weight_decay, ranges::not_negative},
                  field{"epsilon", &scale_by_clipped_lars_trust_ratio::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};

  struct kernel {
    float lr = 0, trust_coefficient = 0, weight_decay = 0, epsilon = 0;
    DOVETAIL_HD float factor(norms n) const {
      if (!(n.weight > 0 && n.update > 0)) return 1.0f;
      double const r = static_cast<double>(trust_coefficient) * n.weight /
                       (n.update + static_cast<double>(weight_decay) * n.weight + static_cast<double>(epsilon));
      auto const rate = static_cast<double>(lr);
      return r < rate ? static_cast<float>(r / rate) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return factor * (u + weight_decay * w);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {lr, trust_coefficient, weight_decay, epsilon}; }
};

/// Ends a chain as Fromage does: w <- (w - lr u |w| / |u|) / sqrt(1 + lr^2), norms of each tensor; |w| / |u| counts as
/// 1 if either is 0 (Bernstein et al., On the Distance between Two Neural Networks and the Stability of Learning,
/// NeurIPS 2020, algorithm 1).
struct descend_by_relative_distance {
  float lr = 0.01f;  ///< length of a step, as a share of |w|; a number, no schedule
  static constexpr auto describe() {
    return policy{"descend_by_relative_distance", field{"lr", &descend_by_relative_distance::lr, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0, shrink = 0;
    DOVETAIL_HD float factor(norms n) const {
      return n.update > 0 && n.weight > 0 ? detail::factor_from(n.weight / n.update) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return shrink * (w - lr * factor * u) - w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    double const x = static_cast<double>(lr);
    return {lr, static_cast<float>(1 / std::sqrt(1 + x * x))};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// u <- u n / sum |u / w| over the n elements of each tensor, so that a step with rate 1 changes a weight by its own
/// size on average (Abu-El-Haija, Proportionate Gradient Updates with PercentDelta, 2017). |w| counts as at
/// least epsilon.
struct scale_by_percent_delta {
  float epsilon = 1e-3f;  ///< the smallest |w| that is divided by, in units of the weights
  static constexpr auto describe() {
    return policy{"scale_by_percent_delta", field{"epsilon", &scale_by_percent_delta::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true};

  struct kernel {
    float epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T w, T u) const {
      return {product<T>{simd::abs(u) / simd::max(simd::abs(w), T(epsilon)), T(1.0f)}, product<T>{T(1.0f), T(1.0f)}};
    }
    DOVETAIL_HD float factor(std::array<double, 2> const& sums) const {
      return sums[0] > 0 ? detail::factor_from(sums[1] / sums[0]) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {detail::least_epsilon(epsilon)}; }
};

/// Adam's moments; a = m^ / d + weight_decay w and c = u / d + weight_decay w with d = sqrt(v^) + epsilon;
/// u <- phi(|w|) (b1 a / |a| + (1 - b1) c / |c|), norms of each tensor, phi(x) = min(max(x, min_norm), max_norm) (Zheng
/// et al., Accelerated Large Batch Optimization of BERT Pretraining in 54 minutes, 2020, algorithm 2). Behind
/// normalize_per_tensor it is LANS.
struct scale_by_lans {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;
  float min_norm = 0, max_norm = std::numeric_limits<float>::max();
  static constexpr auto describe() {
    return policy{"scale_by_lans",
                  field{"beta1", &scale_by_lans::beta1, ranges::share},
                  field{"beta2", &scale_by_lans::beta2, ranges::share},
                  field{"epsilon", &scale_by_lans::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_lans::weight_decay, ranges::not_negative},
                  field{"min_norm", &scale_by_lans::min_norm, ranges::not_negative},
                  field{"max_norm", &scale_by_lans::max_norm, ranges::positive_or_infinite}};
  }
  static constexpr reduction needs{.per_tensor = true};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float correct1 = 0, correct2 = 0, epsilon = 0, weight_decay = 0, min_norm = 0, max_norm = 0;
    /// w^2, a^2, c^2.
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 3> measure(T w, T u, T m, T v) const {
      T const d = correct2 * simd::sqrt(v) + epsilon;
      return {square(w), square(correct1 * m / d + weight_decay * w), square(u / d + weight_decay * w)};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 3> const& squares) const {
      double const phi =
          std::min(std::max(std::sqrt(squares[0]), static_cast<double>(min_norm)), static_cast<double>(max_norm));
      auto const ratio = [&](double square) { return phi > 0 && square > 0 ? phi / std::sqrt(square) : 1.0; };
      return {static_cast<float>(static_cast<double>(beta1) * ratio(squares[1])),
              static_cast<float>(static_cast<double>(rest1) * ratio(squares[2]))};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T m, T v, T averaged, T fresh) const {
      T const d = correct2 * simd::sqrt(v) + epsilon;
      return averaged * (correct1 * m / d + weight_decay * w) + fresh * (u / d + weight_decay * w);
    }
  };
  void check() const { detail::check_bounds("scale_by_lans", min_norm, max_norm); }
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {detail::moments_of(beta1, beta2),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon),
            weight_decay,
            min_norm,
            max_norm};
  }
};

/// Adam that finds its own rate d (Mishchenko & Defazio, Prodigy, ICML 2024, algorithm 4, as in the authors' program):
/// m <- b1 m + (1 - b1) d u; v <- b2 v + (1 - b2) d^2 u^2; s <- b3 s + d^2 u / d0; r <- b3 r + d^2 <u, w0 - w> / d0,
/// with w0 the first weights, <> and |s|_1 over all tensors; d' = max(d, coefficient r / |s|_1); u <- d (m / (sqrt(v) +
/// d' epsilon) + weight_decay w); d <- d'. With bias_correction u and what is added to s and r are also multiplied by
/// sqrt(1 - b2^t) / (1 - b1^t), as optax does.
struct scale_by_prodigy {
  float beta1 = 0.9f, beta2 = 0.999f;
  float beta3 = 0;  ///< 0: sqrt(beta2)
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float initial_d = 1e-6f;
  float coefficient = 1;
  bool bias_correction = false;
  static constexpr auto describe() {
    return policy{"scale_by_prodigy",
                  field{"beta1", &scale_by_prodigy::beta1, ranges::share},
                  field{"beta2", &scale_by_prodigy::beta2, ranges::share},
                  field{"beta3", &scale_by_prodigy::beta3, ranges::share},
                  field{"epsilon", &scale_by_prodigy::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_prodigy::weight_decay, ranges::not_negative},
                  field{"initial_d", &scale_by_prodigy::initial_d, ranges::positive},
                  field{"coefficient", &scale_by_prodigy::coefficient, ranges::positive},
                  field{"bias_correction", &scale_by_prodigy::bias_correction}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "s", "p0"};
  static constexpr bool keeps_weights = true;
  static constexpr std::array scalars{"d", "numerator"};
  constexpr double initial_scalar(std::size_t i) const { return i == 0 ? static_cast<double>(initial_d) : 0.0; }

  struct kernel {
    float beta1 = 0, beta2 = 0, beta3 = 0, epsilon = 0, weight_decay = 0, first = 0;
    double initial_d = 0, coefficient = 0, correct = 1;
    float gain1 = 0, gain2 = 0, gain3 = 0;  ///< (1 - b1) d, (1 - b2) d^2, d^2 / d0
    DOVETAIL_HD constexpr void begin(double d, double) {
      gain1 = static_cast<float>((1 - static_cast<double>(beta1)) * d);
      gain2 = static_cast<float>((1 - static_cast<double>(beta2)) * d * d);
      gain3 = static_cast<float>(correct * d * d / initial_d);
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& m, T& v, T& s, T& w0) const {
      w0 = simd::select(T(first) > 0.0f, w, w0);
      m = beta1 * m + gain1 * u;
      v = beta2 * v + gain2 * u * u;
      s = beta3 * s + gain3 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T w, T u, T, T, T s, T w0) const {
      return {product<T>{u, w0 - w}, product<T>{simd::abs(s), T(1.0f)}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 2> const& sums, double& d, double& r) const {
      double const before = d;
      r = static_cast<double>(beta3) * r + correct * d * d / initial_d * sums[0];
      double const estimate = sums[1] > 0 ? coefficient * r / sums[1] : 0;
      if (estimate > d) d = estimate;
      return {static_cast<float>(correct * before),
              detail::root_epsilon(static_cast<float>(d * static_cast<double>(epsilon)))};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T, T m, T v, T, T, T d, T d_epsilon) const {
      return d * (m / (simd::sqrt(v) + d_epsilon) + weight_decay * w);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            beta2,
            beta3 > 0 ? beta3 : static_cast<float>(std::sqrt(static_cast<double>(beta2))),
            epsilon,
            weight_decay,
            t == 1 ? 1.0f : 0.0f,
            static_cast<double>(initial_d),
            static_cast<double>(coefficient),
            bias_correction ? detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t)) : 1};
  }
};

}  // namespace dovetail::optim
