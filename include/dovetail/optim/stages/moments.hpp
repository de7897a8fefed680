// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/simd.hpp>

// What averages of gradients share: constants in double precision, worked out before a step begins.

namespace dovetail::optim {

namespace detail {
/// base^n in double precision, by squaring.
constexpr double power(double base, std::int64_t n) {
  double r = 1;
  for (; n > 0; n >>= 1, base *= base)
    if (n & 1) r *= base;
  return r;
}

/// 1 / (1 - beta^t): what undoes that an average began at 0.
DOVETAIL_HD inline double correction(float beta, std::int64_t t) {
  return 1 / (1 - power(static_cast<double>(beta), t));
}
DOVETAIL_HD inline float root_correction(float beta, std::int64_t t) {
  return static_cast<float>(std::sqrt(correction(beta, t)));
}
DOVETAIL_HD inline float complement(float beta) { return static_cast<float>(1 - static_cast<double>(beta)); }

/// Adam's moments: m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) u^2, here and elsewhere as ((1 - b2) u) u, which
/// overflows no earlier than it must; m^ = m / (1 - b1^t), v^ = v / (1 - b2^t).
struct moments {
  float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0;
  template <class T>
  DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
    m = beta1 * m + one_minus_beta1 * u;
    v = beta2 * v + one_minus_beta2 * u * u;
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
  float gradient_weight = 0, momentum_weight = 0;
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

}  // namespace dovetail::optim
