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
#include <dovetail/optim/directions/corrections.hpp>

// Adam's relatives.
// u is the update that arrives, t the step from 1; all operations are elementwise.
// x^ is an average x whose beginning at 0 is undone: m^ = m / (1 - b1^t), v^ = v / (1 - b2^t).

namespace dovetail::optim {

/// m <- b1 m + (1 - b1) u; n <- max(b2 n, |u| + epsilon); u <- m^ / n (Kingma & Ba, ICLR 2015, algorithm 2).
struct scale_by_adamax {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adamax", field{"beta1", &scale_by_adamax::beta1, ranges::share},
                  field{"beta2", &scale_by_adamax::beta2, ranges::share},
                  field{"epsilon", &scale_by_adamax::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_inf"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, epsilon = 0, correct1 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& n) const {
      m = beta1 * m + rest1 * u;
      n = simd::max(beta2 * n, simd::abs(u) + epsilon);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T n) const {
      return correct1 * m / n;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1, detail::complement(beta1), beta2, detail::least_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t))};
  }
};

namespace detail {
/// Adam's moments: m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) u^2, here and elsewhere as ((1 - b2) u) u, which
/// overflows no earlier than it must; m^ = m / (1 - b1^t), v^ = v / (1 - b2^t).
struct moments {
  float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0;
  template <class T>
  DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
    m = beta1 * m + rest1 * u;
    v = beta2 * v + rest2 * u * u;
  }
};
/// The same, and the largest v so far: x <- max(x, v).
struct largest_moments : moments {
  template <class T>
  DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& x) const {
    moments::advance(u, m, v);
    x = simd::max(x, v);
  }
};
DOVETAIL_HD inline moments moments_of(float beta1, float beta2) {
  return {beta1, complement(beta1), beta2, complement(beta2)};
}

/// c0 and c1 of Nadam.
struct nesterov_weights {
  float fresh = 0, averaged = 0;
};
/// Of step t: c0 = (1 - mu_t) / (1 - M_t), c1 = mu_(t+1) / (1 - M_(t+1)), mu_t = beta (1 - 0.96^(t decay) / 2), M_t =
/// mu_1 ... mu_t. With q = 0.96^decay, log(1 - q^i / 2) = -sum_k (q^i / 2)^k / k, and the sum over i is a geometric
/// series: 50 terms instead of t factors.
DOVETAIL_HD inline nesterov_weights nesterov_shares(float beta, float decay, std::int64_t t) {
  double const r = std::log(0.96) * static_cast<double>(decay), n = static_cast<double>(t),
               b = static_cast<double>(beta);
  double sum = 0, half = 0.5;
  for (int k = 1; k <= 50; ++k, half *= 0.5) {
    double const rk = r * k;
    sum += half / k * (rk == 0 ? n : std::exp(rk) * std::expm1(rk * n) / std::expm1(rk));
  }
  double const product = b > 0 ? std::exp(n * std::log(b) - sum) : 0;
  double const now = b * (1 - 0.5 * std::exp(r * n)), next = b * (1 - 0.5 * std::exp(r * (n + 1)));
  return {static_cast<float>((1 - now) / (1 - product)), static_cast<float>(next / (1 - product * next))};
}
}  // namespace detail

/// Adam's moments; u <- (c0 u + c1 m) / (sqrt(v^) + epsilon) with mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), M_t the
/// product of mu_1 to mu_t, c0 = (1 - mu_t) / (1 - M_t), c1 = mu_(t+1) / (1 - M_(t+1)) (Dozat, Incorporating Nesterov
/// Momentum into Adam, 2016, with PyTorch's schedule).
struct scale_by_nadam {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_nadam", field{"beta1", &scale_by_nadam::beta1, ranges::share},
                  field{"beta2", &scale_by_nadam::beta2, ranges::share},
                  field{"epsilon", &scale_by_nadam::epsilon, ranges::not_negative},
                  field{"momentum_decay", &scale_by_nadam::momentum_decay, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float fresh = 0, averaged = 0, correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (fresh * u + averaged * m) / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    auto const shares = detail::nesterov_shares(beta1, momentum_decay, t);
    return {detail::moments_of(beta1, beta2), shares.fresh, shares.averaged, detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// Adam's moments; x <- max(x, v); u <- m^ / (sqrt(x / (1 - b2^t)) + epsilon) (Reddi et al., On the Convergence of Adam
/// and Beyond, ICLR 2018, algorithm 2, with PyTorch's corrections).
struct scale_by_amsgrad {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_amsgrad", field{"beta1", &scale_by_amsgrad::beta1, ranges::share},
                  field{"beta2", &scale_by_amsgrad::beta2, ranges::share},
                  field{"epsilon", &scale_by_amsgrad::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : detail::largest_moments {
    float correct1 = 0, correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T, T x) const {
      return correct1 * m / (correct2 * simd::sqrt(x) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {{detail::moments_of(beta1, beta2)},
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// Adam's moments. With r = 2 / (1 - b2) - 1 and r_t = r - 2 t b2^t / (1 - b2^t): u <- m^ while r_t <= 5, then
/// u <- m^ sqrt((r_t - 4)(r_t - 2) r / ((r - 4)(r - 2) r_t)) sqrt(1 - b2^t) / (sqrt(v) + epsilon) (Liu et al., On the
/// Variance of the Adaptive Learning Rate and Beyond, ICLR 2020, algorithm 2).
struct scale_by_radam {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_radam", field{"beta1", &scale_by_radam::beta1, ranges::share},
                  field{"beta2", &scale_by_radam::beta2, ranges::share},
                  field{"epsilon", &scale_by_radam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float correct1 = 0, plain = 0, adaptive = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return correct1 * m * (plain + adaptive / (simd::sqrt(v) + epsilon));
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b2 = static_cast<double>(beta2), n = static_cast<double>(t), b2t = detail::power(b2, t);
    double const r = 2 / (1 - b2) - 1, rt = r - 2 * n * b2t / (1 - b2t);
    bool const trusted = rt > 5;
    double const rectified = trusted ? std::sqrt((rt - 4) * (rt - 2) * r / ((r - 4) * (r - 2) * rt) * (1 - b2t)) : 0;
    return {detail::moments_of(beta1, beta2), static_cast<float>(detail::correction(beta1, t)), trusted ? 0.0f : 1.0f,
            static_cast<float>(rectified), detail::root_epsilon(epsilon)};
  }
};

/// Adam's moments; u <- m min(max(c / (sqrt(v) + epsilon), l), h), c = sqrt(1 - b2^t) / (1 - b1^t), with bounds
/// l = final_ratio (1 - 1 / (gamma t + 1)), h = final_ratio (1 + 1 / (gamma t)) in units of the learning rate (Luo et
/// al., Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR 2019, algorithm 2).
struct scale_by_adabound {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float final_ratio = 100;
  float gamma = 1e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_adabound",
                  field{"beta1", &scale_by_adabound::beta1, ranges::share},
                  field{"beta2", &scale_by_adabound::beta2, ranges::share},
                  field{"epsilon", &scale_by_adabound::epsilon, ranges::not_negative},
                  field{"final_ratio", &scale_by_adabound::final_ratio, ranges::positive},
                  field{"gamma", &scale_by_adabound::gamma, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel : detail::moments {
    float correct = 0, low = 0, high = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return m * simd::min(simd::max(correct / (simd::sqrt(v) + epsilon), T(low)), T(high));
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const g = static_cast<double>(gamma) * static_cast<double>(t), last = static_cast<double>(final_ratio);
    return {detail::moments_of(beta1, beta2),
            static_cast<float>(detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t))),
            static_cast<float>(last * (1 - 1 / (g + 1))), static_cast<float>(last * (1 + 1 / g)),
            detail::root_epsilon(epsilon)};
  }
};

/// m <- b1 m + (1 - b1) u; s <- b2 s + (1 - b2)(u - m)^2 + epsilon; u <- m^ / (sqrt(s / (1 - b2^t)) + epsilon) (Zhuang
/// et al., AdaBelief Optimizer, NeurIPS 2020, algorithm 2).
struct scale_by_adabelief {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;
  static constexpr auto describe() {
    return policy{"scale_by_adabelief", field{"beta1", &scale_by_adabelief::beta1, ranges::share},
                  field{"beta2", &scale_by_adabelief::beta2, ranges::share},
                  field{"epsilon", &scale_by_adabelief::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_var"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, epsilon = 0, correct1 = 0, correct2 = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& s) const {
      m = beta1 * m + rest1 * u;
      T const surprise = u - m;
      s = beta2 * s + rest2 * surprise * surprise + epsilon;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T s) const {
      return correct1 * m / (correct2 * simd::sqrt(s) + least);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            epsilon,
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// m <- b1 m + (1 - b1) u; v <- v - (1 - b2) sign(v - u^2) u^2; u <- m^ / (sqrt(v^) + epsilon) (Zaheer et al., Adaptive
/// Methods for Nonconvex Optimization, NeurIPS 2018, algorithm 2, with Adam's corrections as in optax).
struct scale_by_yogi {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-3f;
  float initial_accumulator = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_yogi", field{"beta1", &scale_by_yogi::beta1, ranges::share},
                  field{"beta2", &scale_by_yogi::beta2, ranges::share},
                  field{"epsilon", &scale_by_yogi::epsilon, ranges::not_negative},
                  field{"initial_accumulator", &scale_by_yogi::initial_accumulator, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};
  constexpr float initial_value(std::size_t slot) const { return slot == 1 ? initial_accumulator : 0; }

  struct kernel {
    float beta1 = 0, rest1 = 0, rest2 = 0, epsilon = 0, correct1 = 0, correct2 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + rest1 * u;
      v = v - simd::sign(v - u * u) * (rest2 * u * u);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return correct1 * m / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            detail::complement(beta2),
            detail::root_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t)};
  }
};

}  // namespace dovetail::optim
