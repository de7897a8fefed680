// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, t the step from 1. The slot `hessian_diagonal` is fed outside of the step, every few
// steps, by observations (optim::hessian_diagonal): a step stays one pass over memory.

namespace dovetail::optim {

/// AdaHessian's direction (Yao et al., AAAI 2021, algorithm 1 and equation 10): m <- b1 m + (1 - b1) u; v <- b2 v +
/// (1 - b2) D^2, D the last diagonal that was observed, averaged over blocks; u <- m^ / (sqrt(v^)^power + epsilon), m^
/// and v^ being m / (1 - b1^t) and v / (1 - b2^t). Until something is observed, D is 1.
struct scale_by_adahessian {
  using kind = elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-4f;
  spatial average = spatial::kernel;
  float power = 1;
  static constexpr auto describe() {
    return policy{"scale_by_adahessian",
                  field{"beta1", &scale_by_adahessian::beta1, ranges::share},
                  field{"beta2", &scale_by_adahessian::beta2, ranges::share},
                  field{"epsilon", &scale_by_adahessian::epsilon, ranges::not_negative},
                  field{"average", &scale_by_adahessian::average, detail::spatial_names},
                  field{"power", &scale_by_adahessian::power, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "exp_hessian_sq", "hessian_diagonal"};
  static constexpr float initial_value(std::size_t slot) { return slot == 2 ? 1.0f : 0.0f; }

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, epsilon = 0, bias_correction1 = 0,
          bias_correction2 = 0, power = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& d) const {
      m = beta1 * m + one_minus_beta1 * u;
      v = beta2 * v + one_minus_beta2 * d * d;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T) const {
      T const root = bias_correction2 * simd::sqrt(v);
      return bias_correction1 * m / ((power == 1 ? root : simd::pow(root, power)) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            detail::root_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            power};
  }
  /// The slot behind an observation.
  static constexpr std::size_t curvature_slot = 2;
  template <class T>
  DOVETAIL_HD static T observed(T, T estimate) {
    constexpr T most = static_cast<T>(sizeof(T) == sizeof(float) ? 1e18 : 1e150);  // whose square is finite
    return std::clamp(estimate, -most, most);
  }
};

/// AdaHessian (Yao et al., AAAI 2021): Adam with the Hessian's diagonal, from Hutchinson's estimate, in place of the
/// gradient; weight decay is decoupled. Until a diagonal is observed, SGD with momentum. 1 pass, 32 bytes.
///
///     optim::hutchinson_diagonal(product, {.seed = 1, .step = step}, estimate);
///     rule.observe(parameters, state, optim::hessian_diagonal{estimate});
struct adahessian {
  schedule lr = 0.15f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-4f;
  float weight_decay = 0;
  spatial average = spatial::kernel;  ///< of the diagonal
  float power = 1;  ///< of the diagonal's root mean square, the paper's k, above 0: the less, the nearer to momentum
  static constexpr auto describe() {
    return policy{"adahessian",
                  field{"lr", &adahessian::lr},
                  field{"beta1", &adahessian::beta1, ranges::share},
                  field{"beta2", &adahessian::beta2, ranges::share},
                  field{"epsilon", &adahessian::epsilon, ranges::not_negative},
                  field{"weight_decay", &adahessian::weight_decay, ranges::not_negative},
                  field{"average", &adahessian::average, detail::spatial_names},
                  field{"power", &adahessian::power, ranges::positive}};
  }

  using rule = chain<scale_by_adahessian, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {scale_by_adahessian{beta1, beta2, epsilon, average, power}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
