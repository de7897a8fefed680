// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/moments.hpp>

// The elementwise stages. In the formulas u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// u <- u + weight_decay w. Before the direction it is L2 regularization, behind it decoupled decay
/// (Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019).
struct add_decayed_weights {
  using kind = elementwise;
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
  using kind = elementwise;
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
  using kind = elementwise;
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
  using kind = elementwise;
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
  constexpr kernel prepare(std::int64_t, float rate) const { return {rate}; }
  constexpr float learning_rate(std::int64_t t) const { return lr(t - 1); }
};

/// Heavy-ball momentum as PyTorch's SGD has it: b <- momentum b + (1 - dampening) u, in the first step b <- u; u <- b.
struct accumulate_momentum {
  using kind = elementwise;
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
  using kind = elementwise;
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

/// m <- beta m + (1 - beta) u; u <- m.
struct accumulate_average {
  using kind = elementwise;
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

/// u <- (alpha + beta) u - beta (the u of before), in the first step alpha u: the last change of the update is expected
/// to come again (Mokhtari et al., A Unified Analysis of Extra-gradient and Optimistic Gradient Methods, AISTATS 2020).
/// Behind a direction it makes that optimistic.
struct extrapolate_from_past {
  using kind = elementwise;
  float alpha = 1;  ///< weight of the update
  float beta = 1;   ///< weight of its change since the step before
  static constexpr auto describe() {
    return policy{"extrapolate_from_past", field{"alpha", &extrapolate_from_past::alpha, ranges::finite},
                  field{"beta", &extrapolate_from_past::beta, ranges::finite}};
  }
  static constexpr std::array slots{"previous_update"};

  struct kernel {
    float alpha = 0, beta = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& before) const {
      T const change = beta * (u - before);
      before = u;
      return alpha * u + change;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {alpha, t == 1 ? 0.0f : beta}; }
};

}  // namespace dovetail::optim
