// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <dovetail/core/config.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/stage.hpp>

// How an engine calls the functions of a stage and of its kernel.

namespace dovetail::optim {

namespace detail {

template <class S>
constexpr kernel_of<S> prepare(S const& s, std::int64_t t) {
  if constexpr (stage_traits<S>::is_tensorwise)
    return {&s};
  else if constexpr (stage_traits<S>::takes_rate)
    return s.prepare(t, s.learning_rate(t));
  else
    return s.prepare(t);
}

/// The factors of a reducing stage, from its sums (those it measures, or the squares of update and weight) and scalars.
template <class S, std::size_t... I>
DOVETAIL_HD constexpr auto factor_of(kernel_of<S> const& kernel, double const* sums, double* scalars,
                                     std::index_sequence<I...>) {
  if constexpr (stage_traits<S>::measured > 0) {
    std::array<double, stage_traits<S>::measured> measured{};
    for (std::size_t i = 0; i < stage_traits<S>::measured; ++i) measured[i] = sums[i];
    return kernel.factor(measured, scalars[I]...);
  } else {
    return kernel.factor(norms{std::sqrt(sums[0]), S::needs.weight_norm ? std::sqrt(sums[1]) : 0}, scalars[I]...);
  }
}

template <class K, class Scalar, std::size_t... C>
DOVETAIL_HD constexpr void begin_with(K& kernel, Scalar const& scalar, std::index_sequence<C...>) {
  kernel.begin(scalar(C)...);
}
/// Tells a kernel what its stage remembers of all tensors together; `scalar(c)` is scalar c.
template <class S, class Scalar>
DOVETAIL_HD constexpr void begin_stage([[maybe_unused]] kernel_of<S>& kernel, [[maybe_unused]] Scalar const& scalar) {
  if constexpr (stage_traits<S>::begins) begin_with(kernel, scalar, upto<stage_traits<S>::scalars>{});
}

/// What a stage's functions get of an element before its slots: the weight, the update that reaches the stage, and the
/// gradient, for a stage that reads it. All are constant, and so are slots, but for `advance` and `step`.
template <class T>
struct element_of {
  T w, u, g;
};
/// One number for a stage that reads the gradient, none for others: `x.g` is passed as often.
template <class S>
using gradient_argument = std::make_index_sequence<stage_traits<S>::reads_gradient>;
template <std::size_t, class T>
DOVETAIL_INLINE constexpr T const& each_time(T const& x) {
  return x;
}

/// Advances the slots of one stage.
template <class S, class T, std::size_t... I, std::size_t... G>
DOVETAIL_INLINE constexpr void advance_stage(kernel_of<S> const& kernel, [[maybe_unused]] element_of<T> const& x,
                                             [[maybe_unused]] T* slots, std::index_sequence<I...>,
                                             std::index_sequence<G...>) {
  if constexpr (stage_traits<S>::advances_with_weight)
    kernel.advance(x.w, x.u, each_time<G>(x.g)..., slots[I]...);
  else if constexpr (stage_traits<S>::advances)
    kernel.advance(x.u, each_time<G>(x.g)..., slots[I]...);
}
/// Advances a stage that measures, and gives the terms of its sums.
template <class S, class T, std::size_t... I, std::size_t... G>
DOVETAIL_INLINE constexpr auto measure_stage(kernel_of<S> const& kernel, element_of<T> const& x,
                                             [[maybe_unused]] T* slots, std::index_sequence<I...> own,
                                             std::index_sequence<G...> gradient) {
  advance_stage<S>(kernel, x, slots, own, gradient);
  return kernel.measure(x.w, x.u, each_time<G>(x.g)..., each_time<I>(slots[I])...);
}

/// Applies one stage to the update `u`: advances its slots if `Advance`, then emits. A reducing stage had advanced
/// before it measured.
template <class S, bool Advance, class T, std::size_t... I, std::size_t... F, std::size_t... G>
DOVETAIL_INLINE constexpr T apply_stage([[maybe_unused]] kernel_of<S> const& kernel, element_of<T> const& x,
                                        [[maybe_unused]] T* slots, [[maybe_unused]] T const* factors,
                                        [[maybe_unused]] std::index_sequence<I...> own, std::index_sequence<F...>,
                                        [[maybe_unused]] std::index_sequence<G...> gradient) {
  using traits = stage_traits<S>;
  if constexpr (traits::is_reducing) {
    if constexpr (traits::passes_through)
      return x.u;
    else
      return kernel.emit(x.w, x.u, each_time<G>(x.g)..., each_time<I>(slots[I])..., factors[F]...);
  } else if constexpr (traits::is_tensorwise) {
    return x.u;
  } else if constexpr (traits::evaluated_once) {
    return kernel.step(x.w, x.u, each_time<G>(x.g)..., slots[I]...);
  } else {
    if constexpr (Advance) advance_stage<S>(kernel, x, slots, own, gradient);
    return kernel.emit(x.w, x.u, each_time<G>(x.g)..., each_time<I>(slots[I])...);
  }
}

}  // namespace detail

}  // namespace dovetail::optim
