// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/stage.hpp>

// u is the update that arrives, w the weight, t the step from 1; |x| is the L2 norm. A norm of 0 gives the factor 1.

namespace dovetail::optim {

/// Ends a chain as Fromage does: w <- (w - lr u |w| / |u|) / sqrt(1 + lr^2), norms of each tensor; |w| / |u| counts as
/// 1 if either is 0 (Bernstein et al., On the Distance between Two Neural Networks and the Stability of Learning,
/// NeurIPS 2020, algorithm 1).
struct descend_by_relative_distance {
  using kind = reducing;
  float lr = 0.01f;  ///< length of a step, as a share of |w|; a number, no schedule
  static constexpr auto describe() {
    return policy{"descend_by_relative_distance", field{"lr", &descend_by_relative_distance::lr, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};
  static constexpr bool ends_chain = true;

  struct kernel {
    float lr = 0, shrink = 0;
    DOVETAIL_HD float factor(norms n) const {
      return n.update > 0 && n.weight > 0 ? detail::factor_from(n.weight / n.update) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return shrink * (w - lr * factor * u) - w;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t, float rate) const {
    double const x = static_cast<double>(rate);
    return {rate, static_cast<float>(1 / std::sqrt(1 + x * x))};
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

/// Fromage (Bernstein et al., NeurIPS 2020, algorithm 1): a step is a share of each tensor's length, and the weights
/// are shrunk by as much as it has made them longer. 2 passes, 20 bytes.
struct fromage {
  float lr = 0.01f;  ///< length of a step, as a share of each tensor's; a number, no schedule
  static constexpr auto describe() { return policy{"fromage", field{"lr", &fromage::lr, ranges::not_negative}}; }

  using rule = chain<descend_by_relative_distance>;
  template <class Rule = rule>
  constexpr Rule stages() const { return {descend_by_relative_distance{lr}}; }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
