// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>
#include <dovetail/optim/stages/reducing.hpp>

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// Adam's moments; a = m^ / d + weight_decay w and c = u / d + weight_decay w with d = sqrt(v^) + epsilon;
/// u <- phi(|w|) (b1 a / |a| + (1 - b1) c / |c|), norms of each tensor, phi(x) = min(max(x, min_norm), max_norm) (Zheng
/// et al., Accelerated Large Batch Optimization of BERT Pretraining in 54 minutes, 2020, algorithm 2). Behind
/// normalize_per_tensor it is LANS.
struct scale_by_lans {
  using kind = reducing;
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
    float bias_correction1 = 0, bias_correction2 = 0, epsilon = 0, weight_decay = 0, min_norm = 0, max_norm = 0;
    /// w^2, a^2, c^2.
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 3> measure(T w, T u, T m, T v) const {
      T const d = bias_correction2 * simd::sqrt(v) + epsilon;
      return {square(w), square(bias_correction1 * m / d + weight_decay * w), square(u / d + weight_decay * w)};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 3> const& squares) const {
      double const phi =
          std::min(std::max(std::sqrt(squares[0]), static_cast<double>(min_norm)), static_cast<double>(max_norm));
      auto const ratio = [&](double square) { return phi > 0 && square > 0 ? phi / std::sqrt(square) : 1.0; };
      return {static_cast<float>(static_cast<double>(beta1) * ratio(squares[1])),
              static_cast<float>(static_cast<double>(one_minus_beta1) * ratio(squares[2]))};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T m, T v, T momentum_weight, T gradient_weight) const {
      T const d = bias_correction2 * simd::sqrt(v) + epsilon;
      return momentum_weight * (bias_correction1 * m / d + weight_decay * w) +
             gradient_weight * (u / d + weight_decay * w);
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

/// LANS (Zheng et al., 2020): LAMB on normalized gradients, with Nesterov's look ahead. 3 passes, 48 bytes.
struct lans {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;                                        ///< inside both normalized directions
  float min_norm = 0, max_norm = std::numeric_limits<float>::max();  ///< bounds of phi
  static constexpr auto describe() {
    return policy{"lans",
                  field{"lr", &lans::lr},
                  field{"beta1", &lans::beta1, ranges::share},
                  field{"beta2", &lans::beta2, ranges::share},
                  field{"epsilon", &lans::epsilon, ranges::not_negative},
                  field{"weight_decay", &lans::weight_decay, ranges::not_negative},
                  field{"min_norm", &lans::min_norm, ranges::not_negative},
                  field{"max_norm", &lans::max_norm, ranges::positive_or_infinite}};
  }

  using rule = chain<normalize_per_tensor, scale_by_lans, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {normalize_per_tensor{}, scale_by_lans{beta1, beta2, epsilon, weight_decay, min_norm, max_norm},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
