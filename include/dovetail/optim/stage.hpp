// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <dovetail/core/config.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>

// What a stage is. A stage is an aggregate of hyperparameters; `prepare(step)` (step counts from 1) returns the kernel
// of this step, which holds all constants that do not depend on the element. A kernel is a literal type with a default
// value, and has up to two functions, templates over the number type T (core/simd.hpp):
//
//   T emit(T w, T u, T slots…) const             pure: the update this stage passes on; may be evaluated again
//   void advance([T w,] T u, T& slots…) const    changes the slots, once a step; comes before emit
//
// or, when the update depends on what the slots held before this step, both in one, which cannot be evaluated again
// behind a reduction:
//
//   T step(T w, T u, T& slots…) const            changes the slots and returns the update
//
// where w is the weight, u the update that the previous stage passed on (the gradient, for the first), and slots are
// the stage's own arrays, of the parameters' size and zero at first, named by `static constexpr std::array slots{…}`.
//
// A *reducing* stage says `static constexpr reduction needs{…}`. Its kernel has `float factor(norms) const`, evaluated
// once per tensor or once, and `T emit(T w, T u, T factor) const`; a kernel with neither passes the update through.
//
// A stage may also say
//   float initial_value(i) const                 what slot i of its own holds at first, instead of zero
//   float learning_rate(t) const                 the rate of step t, for step_result and the check that it is finite
//   static constexpr bool ends_chain = true      nothing can come after it
//   static constexpr bool precedes_state = true  nothing with slots can come before it

namespace dovetail::optim {

/// What a reducing stage must know before it can emit.
struct reduction {
  bool per_tensor = false;   ///< norms of each tensor; otherwise of all parameters together
  bool weight_norm = false;  ///< also the weights' norm
};

/// L2 norms of the update that reaches a reducing stage, and of the weights if it asked for them.
struct norms {
  double update = 0;
  double weight = 0;
};

template <class S>
using kernel_of = decltype(std::declval<S const&>().prepare(std::int64_t{1}));

/// Slots of a stage.
template <class S>
inline constexpr std::size_t slot_count = [] {
  if constexpr (requires { S::slots.size(); })
    return S::slots.size();
  else
    return std::size_t{0};
}();

namespace detail {
template <class K, std::size_t... I>
consteval bool can_emit(std::index_sequence<I...>) {
  return requires(K const k, simd::tracer t) {
    { k.emit(t, t, (static_cast<void>(I), t)...) } -> std::same_as<simd::tracer>;
  };
}
template <class K, std::size_t... I>
consteval bool can_advance(std::index_sequence<I...>) {
  return requires(K const k, simd::tracer t) { k.advance(t, (static_cast<void>(I), t)...); };
}
template <class K, std::size_t... I>
consteval bool can_advance_with_weight(std::index_sequence<I...>) {
  return requires(K const k, simd::tracer t) { k.advance(t, t, (static_cast<void>(I), t)...); };
}
template <class K, std::size_t... I>
consteval bool can_step(std::index_sequence<I...>) {
  return requires(K const k, simd::tracer t) {
    { k.step(t, t, (static_cast<void>(I), t)...) } -> std::same_as<simd::tracer>;
  };
}
template <class S>
using slot_sequence = std::make_index_sequence<slot_count<S>>;

template <class S>
consteval bool is_elementwise() {
  if constexpr (
      requires { typename kernel_of<S>; } && !requires { S::needs.per_tensor; })
    return can_emit<kernel_of<S>>(slot_sequence<S>{}) || can_step<kernel_of<S>>(slot_sequence<S>{});
  else
    return false;
}
template <class S>
consteval bool is_reducing() {
  if constexpr (requires {
                  typename kernel_of<S>;
                  S::needs.per_tensor;
                })
    return slot_count<S> == 0;
  else
    return false;
}
}  // namespace detail

/// A stage that needs the element and its own slots only.
template <class S>
concept elementwise_stage = detail::is_elementwise<S>();
/// A stage that needs norms first. It has no slots.
template <class S>
concept reducing_stage = detail::is_reducing<S>();
/// What a chain is made of.
template <class S>
concept stage = elementwise_stage<S> || reducing_stage<S>;

/// A stage that changes slots, and so cannot be undone when the step turns out to be skipped.
template <class S>
inline constexpr bool has_slots = slot_count<S> > 0;

/// A stage whose update depends on slots that it replaces: it is evaluated once a step.
template <class S>
inline constexpr bool evaluated_once = [] {
  if constexpr (elementwise_stage<S>)
    return !detail::can_emit<kernel_of<S>>(detail::slot_sequence<S>{});
  else
    return false;
}();

/// A reducing stage that passes the update through: the next reduction can share its pass.
template <class S>
inline constexpr bool passes_through = [] {
  if constexpr (reducing_stage<S>) return !requires(kernel_of<S> const k, norms n) {
      k.factor(n);
    };
  else
    return false;
}();

/// A stage that turns the update into the change of the weights: nothing can come after it.
template <class S>
inline constexpr bool ends_chain = [] {
  if constexpr (requires { S::ends_chain; })
    return S::ends_chain;
  else
    return false;
}();

/// A stage behind the end of a chain: its update is the change that the weights are about to take. It may observe the
/// new weights w + u (averages) or replace the change (lookahead).
template <class S>
inline constexpr bool behind_rate = [] {
  if constexpr (requires { S::behind_rate; })
    return S::behind_rate;
  else
    return false;
}();

/// A stage that needs state untouched when it decides: it must come before any stage with slots.
template <class S>
inline constexpr bool precedes_state = [] {
  if constexpr (requires { S::precedes_state; })
    return S::precedes_state;
  else
    return false;
}();

namespace detail {

/// Applies one stage to the update `u`: advances its slots if `Advance`, then emits.
template <class S, bool Advance, class T, std::size_t... I>
DOVETAIL_INLINE constexpr T apply_stage(kernel_of<S> const& kernel, T w, T u, [[maybe_unused]] T* slots,
                                        [[maybe_unused]] T factor, std::index_sequence<I...> own) {
  if constexpr (reducing_stage<S>) {
    if constexpr (passes_through<S>)
      return u;
    else
      return kernel.emit(w, u, factor);
  } else if constexpr (evaluated_once<S>) {
    return kernel.step(w, u, slots[I]...);
  } else {
    if constexpr (Advance) {
      if constexpr (can_advance_with_weight<kernel_of<S>>(own))
        kernel.advance(w, u, slots[I]...);
      else if constexpr (can_advance<kernel_of<S>>(own))
        kernel.advance(u, slots[I]...);
    }
    return kernel.emit(w, u, slots[I]...);
  }
}

}  // namespace detail

}  // namespace dovetail::optim
