// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// u <- u n / sum |u / w| over the n elements of each tensor, so that a step with rate 1 changes a weight by its own
/// size on average (Abu-El-Haija, Proportionate Gradient Updates with PercentDelta, 2017). |w| counts as at
/// least epsilon.
struct scale_by_percent_delta {
  using kind = reducing;
  float epsilon = 1e-3f;  ///< the smallest |w| that is divided by, in units of the weights
  static constexpr auto describe() {
    return policy{"scale_by_percent_delta", field{"epsilon", &scale_by_percent_delta::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true};

  struct kernel {
    float epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T w, T u) const {
      return {product<T>{simd::abs(u) / simd::max(simd::abs(w), T(epsilon)), T(1.0f)}, product<T>{T(1.0f), T(1.0f)}};
    }
    DOVETAIL_HD float factor(std::array<double, 2> const& sums) const {
      return sums[0] > 0 ? detail::factor_from(sums[1] / sums[0]) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {detail::least_epsilon(epsilon)}; }
};

/// PercentDelta (Abu-El-Haija, 2017): in each tensor, a step changes the weights by the share lr on average. 2 passes,
/// 28 bytes.
struct percent_delta {
  schedule lr = 0.03f;  ///< mean share of a weight that a step without momentum changes
  float momentum = 0.9f;
  float epsilon = 1e-3f;  ///< the smallest |w| that counts, in units of the weights
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"percent_delta", field{"lr", &percent_delta::lr},
                  field{"momentum", &percent_delta::momentum, ranges::share},
                  field{"epsilon", &percent_delta::epsilon, ranges::not_negative},
                  field{"weight_decay", &percent_delta::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_percent_delta, accumulate_momentum, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_percent_delta{epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
