// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stage.hpp>

// The elementwise stages. In the formulas u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// u <- u + weight_decay w. Before the direction it is L2 regularisation, behind it decoupled decay
/// (Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019).
struct add_decayed_weights {
  float weight_decay = 0.01f;  ///< share of the weight that is added
  static constexpr auto describe() {
    return policy{"add_decayed_weights",
                  field{"weight_decay", &add_decayed_weights::weight_decay, ranges::not_negative}};
  }

  struct kernel {
    float weight_decay = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u) const {
      return u + weight_decay * w;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {weight_decay}; }
};

/// u <- min(max(u, -limit), limit). NaN stays NaN.
struct clip_by_value {
  float limit = 1;  ///< the largest size of an element, in units of the gradient
  static constexpr auto describe() {
    return policy{"clip_by_value", field{"limit", &clip_by_value::limit, ranges::positive}};
  }

  struct kernel {
    float limit = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return simd::max(simd::min(u, T(limit)), T(-limit));
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {limit}; }
};

/// u <- factor u.
struct scale {
  float factor = 1;  ///< may be negative
  static constexpr auto describe() { return policy{"scale", field{"factor", &scale::factor, ranges::finite}}; }

  struct kernel {
    float factor = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {factor}; }
};

/// u <- -lr u: what is added to the weights. Ends a chain.
struct scale_by_learning_rate {
  schedule lr = 1e-3f;  ///< learning rate
  static constexpr auto describe() {
    return policy{"scale_by_learning_rate", field{"lr", &scale_by_learning_rate::lr}};
  }
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return -lr * u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {learning_rate(t)}; }
  constexpr float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// Heavy-ball momentum as PyTorch's SGD has it: b <- momentum b + (1 - dampening) u, in the first step b <- u; u <- b.
struct accumulate_momentum {
  float momentum = 0.9f;
  float dampening = 0;
  static constexpr auto describe() {
    return policy{"accumulate_momentum", field{"momentum", &accumulate_momentum::momentum, ranges::share},
                  field{"dampening", &accumulate_momentum::dampening, ranges::unit}};
  }
  static constexpr std::array slots{"momentum_buffer"};

  struct kernel {
    float momentum = 0, gain = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& b) const {
      b = momentum * b + gain * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T b) const {
      return b;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {momentum, t == 1 ? 1.0f : 1.0f - dampening}; }
};

/// Nesterov's momentum as PyTorch's SGD has it: b <- momentum b + u; u <- u + momentum b.
struct accumulate_nesterov_momentum {
  float momentum = 0.9f;
  static constexpr auto describe() {
    return policy{"accumulate_nesterov_momentum",
                  field{"momentum", &accumulate_nesterov_momentum::momentum, ranges::share}};
  }
  static constexpr std::array slots{"momentum_buffer"};

  struct kernel {
    float momentum = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& b) const {
      b = momentum * b + u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T b) const {
      return u + momentum * b;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {momentum}; }
};

namespace detail {
/// base^n in double precision, by squaring.
constexpr double power(double base, std::int64_t n) {
  double r = 1;
  for (; n > 0; n >>= 1, base *= base)
    if (n & 1) r *= base;
  return r;
}
}  // namespace detail

/// Adam's direction (Kingma & Ba, ICLR 2015, algorithm 1): m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) u^2;
/// u <- m^ / (sqrt(v^) + epsilon) with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t).
struct scale_by_adam {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_adam", field{"beta1", &scale_by_adam::beta1, ranges::share},
                  field{"beta2", &scale_by_adam::beta2, ranges::share},
                  field{"epsilon", &scale_by_adam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, epsilon = 0;
    float correct1 = 0, correct2 = 0;  ///< 1 / (1 - b1^t), 1 / sqrt(1 - b2^t)
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + rest1 * u;
      v = beta2 * v + rest2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      return correct1 * m / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    double const b1 = static_cast<double>(beta1), b2 = static_cast<double>(beta2);
    return {beta1,
            static_cast<float>(1 - b1),
            beta2,
            static_cast<float>(1 - b2),
            detail::root_epsilon(epsilon),
            static_cast<float>(1 / (1 - detail::power(b1, t))),
            static_cast<float>(1 / std::sqrt(1 - detail::power(b2, t)))};
  }
};

}  // namespace dovetail::optim
