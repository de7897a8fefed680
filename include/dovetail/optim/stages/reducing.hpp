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
// is known before any slot has changed and is not finite, the engine skips the step. u is the update that arrives, w
// the weight, t the step from 1; |x| is the L2 norm.

namespace dovetail::optim {

/// u <- u min(1, max_norm / |u|), the norm over all tensors of all groups (Pascanu et al., ICML 2013).
struct clip_by_global_norm {
  using kind = reducing;
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
  using kind = reducing;
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
  using kind = reducing;
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

/// u <- u / |u|, norms of each tensor; a tensor of zeros stays.
struct normalize_per_tensor {
  using kind = reducing;
  static constexpr auto describe() { return policy<normalize_per_tensor>{"normalize_per_tensor"}; }
  static constexpr reduction needs{.per_tensor = true};

  struct kernel {
    DOVETAIL_HD float factor(norms n) const { return n.update > 0 ? detail::factor_from(1 / n.update) : 1.0f; }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

}  // namespace dovetail::optim
