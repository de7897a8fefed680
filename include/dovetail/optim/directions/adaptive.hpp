// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/corrections.hpp>

// Steps scaled by the gradients of before, without momentum.
// u is the update that arrives, t the step from 1; all operations are elementwise.

namespace dovetail::optim {

/// s <- s + u^2; u <- u / (sqrt(s) + epsilon) (Duchi et al., JMLR 2011, section 1.1, diagonal).
struct scale_by_adagrad {
  float initial_accumulator = 0;
  float epsilon = 1e-10f;
  static constexpr auto describe() {
    return policy{"scale_by_adagrad",
                  field{"initial_accumulator", &scale_by_adagrad::initial_accumulator, ranges::not_negative},
                  field{"epsilon", &scale_by_adagrad::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"sum"};
  constexpr float initial_value(std::size_t) const { return initial_accumulator; }

  struct kernel {
    float epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& s) const {
      s = s + u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T s) const {
      return u / (simd::sqrt(s) + epsilon);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {detail::root_epsilon(epsilon)}; }
};

/// v <- rho v + (1 - rho) u^2; d = u sqrt(a + epsilon) / sqrt(v + epsilon) with the a of before;
/// a <- rho a + (1 - rho) d^2; u <- d (Zeiler, ADADELTA, 2012, algorithm 1).
struct scale_by_adadelta {
  float rho = 0.9f;
  float epsilon = 1e-6f;
  static constexpr auto describe() {
    return policy{"scale_by_adadelta", field{"rho", &scale_by_adadelta::rho, ranges::share},
                  field{"epsilon", &scale_by_adadelta::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"square_avg", "acc_delta"};

  struct kernel {
    float rho = 0, rest = 0, epsilon = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& v, T& a) const {
      v = rho * v + rest * u * u;
      T const d = simd::sqrt(a + epsilon) / simd::sqrt(v + least) * u;
      a = rho * a + rest * d * d;
      return d;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {rho, detail::complement(rho), epsilon, detail::least_epsilon(epsilon)};
  }
};

/// v <- alpha v + (1 - alpha) u^2; u <- u / (sqrt(v) + epsilon) (Tieleman & Hinton, lecture 6.5, 2012).
struct scale_by_rms {
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

/// v <- beta v + (1 - beta) u^2; u <- u / (sqrt(v / (1 - beta^t)) + epsilon): Adam's direction without momentum.
struct scale_by_corrected_rms {
  float beta = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_corrected_rms", field{"beta", &scale_by_corrected_rms::beta, ranges::share},
                  field{"epsilon", &scale_by_corrected_rms::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg_sq"};

  struct kernel {
    float beta = 0, rest = 0, correct = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v) const {
      v = beta * v + rest * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v) const {
      return u / (correct * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta, detail::complement(beta), detail::root_correction(beta, t), detail::root_epsilon(epsilon)};
  }
};

/// v <- alpha v + (1 - alpha) u^2; a <- alpha a + (1 - alpha) u; u <- u / (sqrt(v - a^2) + epsilon) (Graves, Generating
/// Sequences With Recurrent Neural Networks, 2013, equations 38 to 40). A variance that rounding made negative counts
/// as 0.
struct scale_by_centred_rms {
  float alpha = 0.99f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_centred_rms", field{"alpha", &scale_by_centred_rms::alpha, ranges::share},
                  field{"epsilon", &scale_by_centred_rms::epsilon, ranges::not_negative}};
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

/// s <- clamp(s grow) where u keeps the sign of the gradient before, clamp(s shrink) where it has turned (that gradient
/// is then forgotten); u <- sign(u) s (Riedmiller & Braun, ICNN 1993, without backtracking).
struct scale_by_rprop {
  float initial_step = 1e-2f;
  float shrink = 0.5f, grow = 1.2f;
  float smallest_step = 1e-6f, largest_step = 50;
  static constexpr auto describe() {
    return policy{"scale_by_rprop",
                  field{"initial_step", &scale_by_rprop::initial_step, ranges::positive},
                  field{"shrink", &scale_by_rprop::shrink, ranges::positive_unit},
                  field{"grow", &scale_by_rprop::grow, ranges::count},
                  field{"smallest_step", &scale_by_rprop::smallest_step, ranges::not_negative},
                  field{"largest_step", &scale_by_rprop::largest_step, ranges::positive}};
  }
  static constexpr std::array slots{"prev", "step_size"};
  constexpr float initial_value(std::size_t slot) const { return slot == 1 ? initial_step : 0; }

  struct kernel {
    float shrink = 0, grow = 0, smallest = 0, largest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& before, T& s) const {
      T const turn = u * before;
      T const factor = simd::select(turn > 0.0f, T(grow), simd::select(turn < 0.0f, T(shrink), T(1.0f)));
      s = simd::max(simd::min(s * factor, T(largest)), T(smallest));
      before = simd::select(turn < 0.0f, T(0.0f), u);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T before, T s) const {
      return simd::sign(before) * s;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {shrink, grow, smallest_step, largest_step}; }
  void check() const {
    require(smallest_step <= largest_step, "scale_by_rprop: smallest_step is ", smallest_step, ", largest_step ",
            largest_step, ": it cannot be below");
  }
};

/// Ends a chain as SMORMS3 does, squared mean over root mean squared cubed: r = 1 / (1 + k); m <- (1 - r) m + r u;
/// v <- (1 - r) v + r u^2; x = m^2 / (v + epsilon); k <- 1 + k (1 - x), beginning at 1; u <- -u min(lr, x) / (sqrt(v) +
/// epsilon) (Funk, RMSprop loses to SMORMS3: Beware the Epsilon!, 2015).
struct descend_by_smorms3 {
  float lr = 1e-3f;  ///< the largest rate; a number, no schedule: x is compared with it
  float epsilon = 1e-16f;
  static constexpr auto describe() {
    return policy{"descend_by_smorms3", field{"lr", &descend_by_smorms3::lr, ranges::not_negative},
                  field{"epsilon", &descend_by_smorms3::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"grad_avg", "square_avg", "memory"};
  static constexpr float initial_value(std::size_t slot) { return slot == 2 ? 1.0f : 0.0f; }
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0, epsilon = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& m, T& v, T& k) const {
      T const r = 1.0f / (1.0f + k), keep = 1.0f - r;
      m = keep * m + r * u;
      v = keep * v + r * u * u;
      T const x = simd::min(m * m / (v + epsilon), T(1.0f));  // which it is but for rounding
      k = 1.0f + k * (1.0f - x);
      return -simd::min(x, T(lr)) * u / (simd::sqrt(v) + least);
    }
  };
  constexpr kernel prepare(std::int64_t) const {
    return {lr, detail::least_epsilon(epsilon), detail::root_epsilon(epsilon)};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

}  // namespace dovetail::optim
