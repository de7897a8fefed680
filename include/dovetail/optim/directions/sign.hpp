// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/corrections.hpp>

// Signs and averages of gradients. u is the update that arrives, t the step from 1; all operations are elementwise.

namespace dovetail::optim {

/// u <- sign(u), 0 where u is 0 (Bernstein et al., signSGD, ICML 2018).
struct scale_by_sign {
  static constexpr auto describe() { return policy<scale_by_sign>{"scale_by_sign"}; }
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return simd::sign(u);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// m <- beta m + (1 - beta) u; u <- m.
struct accumulate_average {
  float beta = 0.9f;
  static constexpr auto describe() {
    return policy{"accumulate_average", field{"beta", &accumulate_average::beta, ranges::share}};
  }
  static constexpr std::array slots{"exp_avg"};

  struct kernel {
    float beta = 0, rest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m) const {
      m = beta * m + rest * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m) const {
      return m;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const { return {beta, detail::complement(beta)}; }
};

/// u <- sign(b1 m + (1 - b1) u) with the m of before; m <- b2 m + (1 - b2) u (Chen et al., Symbolic Discovery of
/// Optimization Algorithms, NeurIPS 2023, program 2).
struct scale_by_lion {
  float beta1 = 0.9f, beta2 = 0.99f;
  static constexpr auto describe() {
    return policy{"scale_by_lion", field{"beta1", &scale_by_lion::beta1, ranges::share},
                  field{"beta2", &scale_by_lion::beta2, ranges::share}};
  }
  static constexpr std::array slots{"exp_avg"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& m) const {
      T const c = beta1 * m + rest1 * u;
      m = beta2 * m + rest2 * u;
      return simd::sign(c);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {beta1, detail::complement(beta1), beta2, detail::complement(beta2)};
  }
};

/// b <- beta b + (1 - beta) u; u <- (1 - nu) u + nu b (Ma & Yarats, Quasi-hyperbolic momentum, ICLR 2019, section 3).
struct scale_by_qhm {
  float nu = 0.7f, beta = 0.999f;
  static constexpr auto describe() {
    return policy{"scale_by_qhm", field{"nu", &scale_by_qhm::nu, ranges::unit},
                  field{"beta", &scale_by_qhm::beta, ranges::share}};
  }
  static constexpr std::array slots{"momentum_buffer"};

  struct kernel {
    float nu = 0, fresh = 0, beta = 0, rest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& b) const {
      b = beta * b + rest * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T b) const {
      return fresh * u + nu * b;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {nu, detail::complement(nu), beta, detail::complement(beta)};
  }
};

}  // namespace dovetail::optim
