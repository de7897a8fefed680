// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Ends a chain with Adam's step p = -lr k m / (sqrt(v) + epsilon), k = sqrt(1 - b2^t) / (1 - b1^t), until SGD's rate
/// is known, and with SGD's from then on: with c = <p, p> / -<p, u> over all tensors, lambda <- b2 lambda + (1 - b2) c,
/// unless <p, u> = 0; once L = lambda / (1 - b2^t) is positive, |L - c| < tolerance and t > 1, from the next step on m
/// <- b1 m + u (from 0), u <- -(1 - b1) L m (Keskar & Socher, Improving Generalization Performance by Switching from
/// Adam to SGD, 2017, algorithm 1).
struct switch_adam_to_sgd {
  using kind = reducing;
  float lr = 1e-3f;  ///< of Adam's steps; a number, no schedule: SGD's rate is measured with it
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-9f;
  float tolerance = 1e-9f;  ///< how near the estimate of SGD's rate must come to its average
  static constexpr auto describe() {
    return policy{"switch_adam_to_sgd",
                  field{"lr", &switch_adam_to_sgd::lr, ranges::not_negative},
                  field{"beta1", &switch_adam_to_sgd::beta1, ranges::share},
                  field{"beta2", &switch_adam_to_sgd::beta2, ranges::share},
                  field{"epsilon", &switch_adam_to_sgd::epsilon, ranges::not_negative},
                  field{"tolerance", &switch_adam_to_sgd::tolerance, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};
  static constexpr std::array scalars{"rate_average", "sgd_rate", "switched"};
  static constexpr bool ends_chain = true;

  struct kernel : detail::moments {
    float adam_rate = 0, epsilon = 0, tolerance = 0;
    double correct_rate = 0, now = 0;
    float sgd = 0, keep = 1, gain = 0;  ///< 1 behind the switch; what is kept of m, and what of u enters it
    DOVETAIL_HD constexpr void begin(double, double rate, double switched) {
      bool const after = rate > 0;
      sgd = after ? 1.0f : 0.0f;
      keep = after && now == switched + 1 ? 0.0f : beta1;
      gain = after ? 1.0f : one_minus_beta1;
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = keep * m + gain * u;
      v = beta2 * v + one_minus_beta2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T adam(T m, T v) const {
      return adam_rate * m / (simd::sqrt(v) + epsilon);
    }
    /// |p|^2 and -<p, u>.
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T, T u, T m, T v) const {
      T const p = adam(m, v);
      return {square(p), product<T>{p, u}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 2> const& sums, double& average, double& rate,
                                            double& switched) const {
      if (rate > 0)
        return {0.0f, adam_rate > 0 ? static_cast<float>(static_cast<double>(one_minus_beta1) * rate) : 0.0f};
      if (sums[1] != 0) {
        double const c = sums[0] / sums[1];
        average = static_cast<double>(beta2) * average + static_cast<double>(one_minus_beta2) * c;
        double const estimate = average * correct_rate;
        if (now > 1 && estimate > 0 && std::abs(estimate - c) < static_cast<double>(tolerance)) {
          rate = estimate;
          switched = now;
        }
      }
      return {1.0f, 0.0f};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T by_adam, T by_sgd) const {
      return -(by_adam * adam(m, v) + by_sgd * m);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t, float rate) const {
    kernel k{detail::moments_of(beta1, beta2)};
    k.adam_rate = static_cast<float>(static_cast<double>(rate) * detail::correction(beta1, t) /
                                     std::sqrt(detail::correction(beta2, t)));
    k.epsilon = detail::root_epsilon(epsilon);
    k.tolerance = tolerance;
    k.correct_rate = detail::correction(beta2, t);
    k.now = static_cast<double>(t);
    return k;
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// SWATS (Keskar & Socher, 2017, algorithm 1): Adam, until the rate with which SGD would take Adam's steps has settled,
/// and SGD with that rate from then on. 2 passes, 40 bytes.
struct swats {
  float lr = 1e-3f;  ///< of Adam's steps; a number, no schedule: SGD's rate is measured with it
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-9f;
  float tolerance = 1e-9f;  ///< how near SGD's rate must be to its average for the switch
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"swats",
                  field{"lr", &swats::lr, ranges::not_negative},
                  field{"beta1", &swats::beta1, ranges::share},
                  field{"beta2", &swats::beta2, ranges::share},
                  field{"epsilon", &swats::epsilon, ranges::not_negative},
                  field{"tolerance", &swats::tolerance, ranges::positive},
                  field{"weight_decay", &swats::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, switch_adam_to_sgd>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, switch_adam_to_sgd{lr, beta1, beta2, epsilon, tolerance}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
