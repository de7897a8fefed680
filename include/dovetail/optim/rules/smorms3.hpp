// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Ends a chain as SMORMS3 does, squared mean over root mean squared cubed: r = 1 / (1 + k); m <- (1 - r) m + r u;
/// v <- (1 - r) v + r u^2; x = m^2 / (v + epsilon); k <- 1 + k (1 - x), beginning at 1; u <- -u min(lr, x) / (sqrt(v) +
/// epsilon) (Funk, RMSprop loses to SMORMS3: Beware the Epsilon!, 2015).
struct descend_by_smorms3 {
  using kind = elementwise;
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
  constexpr kernel prepare(std::int64_t, float rate) const {
    return {rate, detail::least_epsilon(epsilon), detail::root_epsilon(epsilon)};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// SMORMS3 (Funk, 2015): RMSprop whose averages are as long as gradients agree, with steps no longer than their signal
/// is worth. Weight decay is coupled. 1 pass, 36 bytes.
struct smorms3 {
  float lr = 1e-3f;  ///< the largest rate; a number, no schedule: it is compared with
  float epsilon = 1e-16f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"smorms3", field{"lr", &smorms3::lr, ranges::not_negative},
                  field{"epsilon", &smorms3::epsilon, ranges::not_negative},
                  field{"weight_decay", &smorms3::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, descend_by_smorms3>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {add_decayed_weights{weight_decay}, descend_by_smorms3{lr, epsilon}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
