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
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/directions/corrections.hpp>

// Adam's relatives that average otherwise: with other weights, more averages, or one of the steps instead of the
// gradients. u is the update that arrives, t the step from 1; m^ and v^ are averages whose beginning at 0 is undone.

namespace dovetail::optim {

/// Adam's moments; u <- ((1 - nu1) u + nu1 m^) / (sqrt((1 - nu2) u^2 + nu2 v^) + epsilon) (Ma & Yarats, ICLR 2019,
/// section 4).
struct scale_by_qhadam {
  float nu1 = 0.7f, nu2 = 1;
  float beta1 = 0.995f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_qhadam",
                  field{"nu1", &scale_by_qhadam::nu1, ranges::unit},
                  field{"nu2", &scale_by_qhadam::nu2, ranges::unit},
                  field{"beta1", &scale_by_qhadam::beta1, ranges::share},
                  field{"beta2", &scale_by_qhadam::beta2, ranges::share},
                  field{"epsilon", &scale_by_qhadam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float fresh1 = 0, averaged1 = 0, fresh2 = 0, averaged2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (fresh1 * u + averaged1 * m) / (simd::sqrt(fresh2 * u * u + averaged2 * v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {detail::moments_of(beta1, beta2),
            detail::complement(nu1),
            static_cast<float>(static_cast<double>(nu1) * detail::correction(beta1, t)),
            detail::complement(nu2),
            static_cast<float>(static_cast<double>(nu2) * detail::correction(beta2, t)),
            detail::root_epsilon(epsilon)};
  }
};

/// Adam's moments and a slow average n <- b3 n + (1 - b3) u; u <- (m^ + alpha n) / (sqrt(v^) + epsilon). Over the first
/// `warm_up` steps alpha grows linearly and b3 such that its half-life does (Pagliardini et al., The AdEMAMix
/// Optimizer, ICLR 2025, algorithm 1 and equation 4).
struct scale_by_ademamix {
  float beta1 = 0.9f, beta2 = 0.999f, beta3 = 0.9999f;
  float alpha = 5;
  std::int64_t warm_up = 0;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_ademamix",
                  field{"beta1", &scale_by_ademamix::beta1, ranges::share},
                  field{"beta2", &scale_by_ademamix::beta2, ranges::share},
                  field{"beta3", &scale_by_ademamix::beta3, ranges::share},
                  field{"alpha", &scale_by_ademamix::alpha, ranges::not_negative},
                  field{"warm_up", &scale_by_ademamix::warm_up, ranges::not_negative},
                  field{"epsilon", &scale_by_ademamix::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "exp_avg_slow"};

  struct kernel : detail::moments {
    float beta3 = 0, rest3 = 0, alpha = 0, correct1 = 0, correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& n) const {
      detail::moments::advance(u, m, v);
      n = beta3 * n + rest3 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T n) const {
      return (correct1 * m + alpha * n) / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double a = static_cast<double>(alpha), b3 = static_cast<double>(beta3);
    if (t < warm_up) {
      double const done = static_cast<double>(t) / static_cast<double>(warm_up);
      a *= done;
      if (b3 > 0) {
        // An average that keeps nothing has no half-life to begin with: only b3's counts.
        double const to = std::log(b3), from = beta1 > 0 ? std::log(static_cast<double>(beta1)) : 0;
        b3 = std::min(std::exp(beta1 > 0 ? from * to / ((1 - done) * to + done * from) : to / done), b3);
      }
    }
    return {detail::moments_of(beta1, beta2),
            static_cast<float>(b3),
            static_cast<float>(1 - b3),
            static_cast<float>(a),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// First step: v <- u^2, u <- 0. Then m <- b1 m + (1 - b1) clamp(u / max(sqrt(v), epsilon), (t - 1)^(1/4)) with the v
/// of before; v <- b2 v + (1 - b2) u^2; u <- m (Taniguchi et al., ADOPT, NeurIPS 2024, algorithm 2 with clipping).
struct scale_by_adopt {
  float beta1 = 0.9f, beta2 = 0.9999f;
  float epsilon = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_adopt", field{"beta1", &scale_by_adopt::beta1, ranges::share},
                  field{"beta2", &scale_by_adopt::beta2, ranges::share},
                  field{"epsilon", &scale_by_adopt::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, limit = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      T const scaled = u / simd::max(simd::sqrt(v), T(epsilon));
      m = beta1 * m + rest1 * simd::max(simd::min(scaled, T(limit)), T(-limit));
      v = beta2 * v + rest2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T) const {
      return m;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            t == 1 ? 0.0f : beta2,
            t == 1 ? 1.0f : detail::complement(beta2),
            static_cast<float>(std::pow(static_cast<double>(t - 1), 0.25)),
            detail::root_epsilon(epsilon)};
  }
};

/// With d = u - (the gradient before), 0 at first: m <- b1 m + (1 - b1) u; c <- b2 c + (1 - b2) d;
/// n <- b3 n + (1 - b3)(u + b2 d)^2; u <- (m^ + b2 c^) / (sqrt(n^) + epsilon) (Xie et al., Adan, TPAMI 2024,
/// algorithm 1, each average corrected as in Adam).
struct scale_by_adan {
  float beta1 = 0.98f, beta2 = 0.92f, beta3 = 0.99f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adan", field{"beta1", &scale_by_adan::beta1, ranges::share},
                  field{"beta2", &scale_by_adan::beta2, ranges::share},
                  field{"beta3", &scale_by_adan::beta3, ranges::share},
                  field{"epsilon", &scale_by_adan::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, beta3 = 0, rest3 = 0, epsilon = 0;
    float changes = 0, correct1 = 0, correct2 = 0, correct3 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& c, T& n, T& before) const {
      T const d = changes * (u - before), looked_ahead = u + beta2 * d;
      m = beta1 * m + rest1 * u;
      c = beta2 * c + rest2 * d;
      n = beta3 * n + rest3 * looked_ahead * looked_ahead;
      before = u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T c, T n, T) const {
      return (correct1 * m + correct2 * c) / (correct3 * simd::sqrt(n) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            beta3,
            detail::complement(beta3),
            detail::root_epsilon(epsilon),
            t == 1 ? 0.0f : 1.0f,
            static_cast<float>(detail::correction(beta1, t)),
            static_cast<float>(static_cast<double>(beta2) * detail::correction(beta2, t)),
            detail::root_correction(beta3, t)};
  }
};

}  // namespace dovetail::optim
