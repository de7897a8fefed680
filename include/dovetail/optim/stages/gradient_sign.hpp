// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/stage.hpp>

// Stages that compare the update with the gradient g that the chain began with. They go behind any direction, in front
// of decoupled decay: chain{scale_by_adam{}, cautious{}, add_decayed_weights{}, scale_by_learning_rate{}}.

namespace dovetail::optim {

/// Drops the elements of an update that point away from the descent direction, and scales the others up:
/// u <- u [u g > 0] n / (1 + number of elements with u g > 0), of each tensor of n elements (Liang, Chen, Liu and Liu,
/// Cautious Optimizers: Improving Training with One Line of Code, 2024).
struct cautious {
  using kind = reducing;
  static constexpr auto describe() { return policy<cautious>{"cautious"}; }
  static constexpr reduction needs{.per_tensor = true};
  static constexpr bool reads_gradient = true;

  struct kernel {
    template <class T>
    DOVETAIL_INLINE static constexpr T agree(T u, T g) {  // by signs: a product of small numbers would vanish
      return simd::select(simd::sign(u) * simd::sign(g) > 0.0f, T(1.0f), T(0.0f));
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T, T u, T g) const {
      return {square(agree(u, g)), square(T(1.0f))};
    }
    DOVETAIL_HD float factor(std::array<double, 2> const& sums) const {
      return static_cast<float>(sums[1] / (1 + sums[0]));
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T g, T factor) const {
      return factor * (agree(u, g) * u);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// Takes the size of an update from the direction and its sign from the gradient: u <- |u| sign(g) (Cao, Li and Song,
/// Grams: Gradient Descent with Adaptive Momentum Scaling, 2024).
struct grams {
  using kind = elementwise;
  static constexpr auto describe() { return policy<grams>{"grams"}; }
  static constexpr bool reads_gradient = true;

  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T g) const {
      return simd::abs(u) * simd::sign(g);
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

}  // namespace dovetail::optim
