// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/stage.hpp>

// The stages that must see the whole update first. A zero norm gives the factor 1, never a NaN. If the gradient's norm
// is known before any slot has changed and is not finite, the engine skips the step.

namespace dovetail::optim {

/// u <- u min(1, max_norm / |u|), the norm over all tensors of all groups (Pascanu et al., ICML 2013).
struct clip_by_global_norm {
  float max_norm = 1;  ///< the largest norm, in units of the gradient
  static constexpr auto describe() {
    return policy{"clip_by_global_norm",
                  field{"max_norm", &clip_by_global_norm::max_norm, ranges::positive_or_infinite}};
  }
  static constexpr reduction needs{};

  struct kernel {
    float max_norm = 0;
    DOVETAIL_HD float factor(norms n) const {
      return n.update > static_cast<double>(max_norm) ? static_cast<float>(static_cast<double>(max_norm) / n.update)
                                                      : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {max_norm}; }
};

/// Skips the whole step, so that weights and state stay as they are, if any element of u is NaN or infinite, or if the
/// sum of their squares overflows a float (|u| > 1.8e19): second moments would be infinite for ever.
struct skip_non_finite {
  static constexpr auto describe() { return policy<skip_non_finite>{"skip_non_finite"}; }
  static constexpr reduction needs{};
  static constexpr bool precedes_state = true;

  struct kernel {};
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

namespace detail {
DOVETAIL_COLD inline void check_bounds(char const* who, float low, float high) {
  require(low <= high, who, ": the lower bound is ", low, ", the upper one ", high, ": it cannot be below");
}
}  // namespace detail

/// u <- u phi(|w|) / |u|, norms of each tensor, phi(x) = min(max(x, min_norm), max_norm) (You et al., Large Batch
/// Optimization for Deep Learning, ICLR 2020, algorithm 2). The factor is 1 if phi(|w|) or |u| is 0.
struct scale_by_trust_ratio {
  float min_norm = 0, max_norm = std::numeric_limits<float>::max();  ///< bounds of phi, in units of the weights
  static constexpr auto describe() {
    return policy{"scale_by_trust_ratio", field{"min_norm", &scale_by_trust_ratio::min_norm, ranges::not_negative},
                  field{"max_norm", &scale_by_trust_ratio::max_norm, ranges::positive_or_infinite}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};

  struct kernel {
    float min_norm = 0, max_norm = 0;
    DOVETAIL_HD float factor(norms n) const {
      double const phi = std::min(std::max(n.weight, static_cast<double>(min_norm)), static_cast<double>(max_norm));
      return phi > 0 && n.update > 0 ? detail::factor_from(phi / n.update) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {min_norm, max_norm}; }
  void check() const { detail::check_bounds("scale_by_trust_ratio", min_norm, max_norm); }
};

/// u <- r (u + weight_decay w) with r = trust_coefficient |w| / (|u| + weight_decay |w| + epsilon), norms of each
/// tensor (You et al., Large Batch Training of Convolutional Networks, 2017, algorithm 1). r = 1 if either norm is 0.
struct scale_by_lars_trust_ratio {
  float trust_coefficient = 1e-3f;  ///< length of the new update, as a share of |w|
  float weight_decay = 0;           ///< share of the weight that is added
  float epsilon = 0;                ///< added to the denominator of r
  static constexpr auto describe() {
    return policy{"scale_by_lars_trust_ratio",
                  field{"trust_coefficient", &scale_by_lars_trust_ratio::trust_coefficient, ranges::positive},
                  field{"weight_decay", &scale_by_lars_trust_ratio::weight_decay, ranges::not_negative},
                  field{"epsilon", &scale_by_lars_trust_ratio::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{.per_tensor = true, .weight_norm = true};

  struct kernel {
    float trust_coefficient = 0, weight_decay = 0, epsilon = 0;
    DOVETAIL_HD float factor(norms n) const {
      if (!(n.weight > 0 && n.update > 0)) return 1.0f;
      return detail::factor_from(
          static_cast<double>(trust_coefficient) * n.weight /
          (n.update + static_cast<double>(weight_decay) * n.weight + static_cast<double>(epsilon)));
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T factor) const {
      return factor * (u + weight_decay * w);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {trust_coefficient, weight_decay, epsilon}; }
};

}  // namespace dovetail::optim
