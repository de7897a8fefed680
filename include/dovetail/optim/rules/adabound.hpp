// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Adam's moments; u <- m min(max(c / (sqrt(v) + epsilon), l), h), c = sqrt(1 - b2^t) / (1 - b1^t), with bounds
/// l = final_ratio (1 - 1 / (gamma t + 1)), h = final_ratio (1 + 1 / (gamma t)) in units of the learning rate (Luo et
/// al., Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR 2019, algorithm 2).
struct scale_by_adabound {
  using kind = elementwise;
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

/// AdaBound (Luo et al., ICLR 2019): Adam whose rates per weight are held between bounds that close around
/// final_ratio lr, so that it ends as SGD. 1 pass, 28 bytes.
struct adabound {
  schedule lr = 1e-3f;
  float final_ratio = 100;  ///< the SGD rate at the end, as a multiple of lr
  float gamma = 1e-3f;      ///< how fast the bounds close
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adabound",
                  field{"lr", &adabound::lr},
                  field{"final_ratio", &adabound::final_ratio, ranges::positive},
                  field{"gamma", &adabound::gamma, ranges::positive},
                  field{"beta1", &adabound::beta1, ranges::share},
                  field{"beta2", &adabound::beta2, ranges::share},
                  field{"epsilon", &adabound::epsilon, ranges::not_negative},
                  field{"weight_decay", &adabound::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_adabound, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adabound{beta1, beta2, epsilon, final_ratio, gamma},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaBound's bounds about AMSGrad: Adam's moments; x <- max(x, v); u <- m min(max(c / (sqrt(x) + epsilon), l), h), c =
/// sqrt(1 - b2^t) / (1 - b1^t), l = final_ratio (1 - 1 / (gamma t + 1)), h = final_ratio (1 + 1 / (gamma t)) (Luo et
/// al., Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR 2019).
struct scale_by_amsbound {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float final_ratio = 100;
  float gamma = 1e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_amsbound",
                  field{"beta1", &scale_by_amsbound::beta1, ranges::share},
                  field{"beta2", &scale_by_amsbound::beta2, ranges::share},
                  field{"epsilon", &scale_by_amsbound::epsilon, ranges::not_negative},
                  field{"final_ratio", &scale_by_amsbound::final_ratio, ranges::positive},
                  field{"gamma", &scale_by_amsbound::gamma, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : scale_by_adabound::kernel {
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& x) const {
      detail::moments::advance(u, m, v);
      x = simd::max(x, v);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T m, T, T x) const {
      return scale_by_adabound::kernel::emit(w, u, m, x);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {scale_by_adabound{beta1, beta2, epsilon, final_ratio, gamma}.prepare(t)};
  }
};

/// AMSBound (Luo et al., ICLR 2019): AdaBound with the largest second moment so far. 1 pass, 36 bytes.
struct amsbound {
  schedule lr = 1e-3f;
  float final_ratio = 100;  ///< the SGD rate at the end, as a multiple of lr
  float gamma = 1e-3f;      ///< how fast the bounds close
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"amsbound",
                  field{"lr", &amsbound::lr},
                  field{"final_ratio", &amsbound::final_ratio, ranges::positive},
                  field{"gamma", &amsbound::gamma, ranges::positive},
                  field{"beta1", &amsbound::beta1, ranges::share},
                  field{"beta2", &amsbound::beta2, ranges::share},
                  field{"epsilon", &amsbound::epsilon, ranges::not_negative},
                  field{"weight_decay", &amsbound::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_amsbound, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_amsbound{beta1, beta2, epsilon, final_ratio, gamma},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
