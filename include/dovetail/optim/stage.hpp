// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
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
// A *reducing* stage says `static constexpr reduction needs{…}`. Its kernel has `factor(norms)`, evaluated once per
// tensor or once for all, and `T emit(T w, T u, T slots…, T factors…) const`; a kernel with neither passes the update
// through. factor returns a float, or a std::array of several. The stage may have slots, which advance before it
// measures; a kernel may measure other sums than the norms, and remember numbers from step to step:
//
//   std::array<product<T>, K> measure(T w, T u, T slots…) const    the terms of K sums; factor gets the sums instead
//   static constexpr std::array scalars{…}       their names; factor's further arguments, `double&`, zero at first, one
//                                                per tensor or one for all, as `needs` says
//   void begin(double scalars…)                  of a stage with sums over all tensors: tells the kernel what they are.
//                                                With parameter groups they are updated with the first group's
//                                                hyperparameters only
//
// A *tensorwise* stage maps the update of one tensor as a whole: optim/stages/tensorwise.hpp.
//
// Any kernel may have
//   void evaluated(double loss)                  tells it this step's loss, which step_options then must give
//
// A stage may also say
//   float initial_value(i) const                 what slot i of its own holds at first, instead of zero
//   double initial_scalar(i) const               the same of a scalar
//   float learning_rate(t) const                 the rate of step t, for step_result and the check that it is finite
//   void check() const                           throws argument_error for hyperparameters that it cannot work with
//   static constexpr bool ends_chain = true      nothing can come after it
//   static constexpr bool precedes_state = true  nothing with slots can come before it
//   static constexpr bool slots_hold_weights = true   its slots hold weights of before: optim::low_precision_state does
//   not pack them static constexpr bool exact_slots = true     it magnifies what rounding does to its slots: the same

namespace dovetail::optim {

/// What a reducing stage must know before it can emit.
struct reduction {
  bool per_tensor = false;   ///< sums over each tensor; otherwise over all parameters together
  bool weight_norm = false;  ///< also the weights' norm
};

/// L2 norms of the update that reaches a reducing stage, and of the weights if it asked for them.
struct norms {
  double update = 0;
  double weight = 0;
};

namespace detail {
/// A factor of a reducing stage: the largest float in place of what is larger, so that vanishing updates become large
/// ones, but not infinite.
DOVETAIL_HD constexpr float factor_from(double x) {
  constexpr float largest = 3.40282347e38f;
  return x > static_cast<double>(largest) ? largest : static_cast<float>(x);
}

/// What is added to a root of squares, or compared with it, in a denominator: an epsilon of 0 must not make 0 / 0 of a
/// gradient of exactly 0. 2^-75 is the root of what is too small for a float: beside a root that is not 0 it is
/// nothing.
DOVETAIL_HD constexpr float root_epsilon(float epsilon) { return epsilon > 0x1p-75f ? epsilon : 0x1p-75f; }
/// The same beside what is no root: the smallest normal float.
DOVETAIL_HD constexpr float least_epsilon(float epsilon) { return epsilon > 0x1p-126f ? epsilon : 0x1p-126f; }
}  // namespace detail

/// A term a b of a sum, which runs in double precision over elements.
template <class T>
struct product {
  T a, b;
};
template <class T>
DOVETAIL_INLINE constexpr product<T> square(T x) {
  return {x, x};
}

/// A stage that maps the update of one tensor as a whole (optim/stages/tensorwise.hpp).
template <class S>
concept tensorwise_stage = requires {
  S::tensorwise;
};

namespace detail {
/// What stands for a tensorwise stage among the kernels of a step.
template <class S>
struct whole_stage {
  S const* stage = nullptr;
};
template <class S>
requires(!tensorwise_stage<S>) constexpr auto prepare(S const& s, std::int64_t t) -> decltype(s.prepare(t)) {
  return s.prepare(t);
}
template <tensorwise_stage S>
constexpr whole_stage<S> prepare(S const& s, std::int64_t) {
  return {&s};
}
}  // namespace detail

template <class S>
using kernel_of = decltype(detail::prepare(std::declval<S const&>(), std::int64_t{1}));

/// Slots of a stage.
template <class S>
inline constexpr std::size_t slot_count = [] {
  if constexpr (requires { S::slots.size(); })
    return S::slots.size();
  else
    return std::size_t{0};
}();
/// Numbers that a reducing stage remembers.
template <class S>
inline constexpr std::size_t scalar_count = [] {
  if constexpr (requires { S::scalars.size(); })
    return S::scalars.size();
  else
    return std::size_t{0};
}();

namespace detail {
/// Spelled out because clang-format 19 takes `count<S> > 0` apart.
template <std::size_t Count>
inline constexpr bool has_any = Count != 0;

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
template <class K, std::size_t... I>
consteval bool can_begin(std::index_sequence<I...>) {
  return sizeof...(I) > 0 && requires(K k, double x) { k.begin((static_cast<void>(I), x)...); };
}
template <class K>
concept told_of_losses = requires(K k, double loss) {
  k.evaluated(loss);
};
template <class S>
using slot_sequence = std::make_index_sequence<slot_count<S>>;

template <class K, std::size_t... I>
consteval std::size_t measured(std::index_sequence<I...>) {
  if constexpr (requires(K const k, simd::tracer t) { k.measure(t, t, (static_cast<void>(I), t)...); })
    return std::tuple_size_v<decltype(std::declval<K const&>().measure(simd::tracer{}, simd::tracer{},
                                                                       (static_cast<void>(I), simd::tracer{})...))>;
  else
    return 0;
}

template <class S>
consteval bool is_elementwise() {
  if constexpr (
      requires { typename kernel_of<S>; } && !requires { S::needs.per_tensor; } && !tensorwise_stage<S>)
    return can_emit<kernel_of<S>>(slot_sequence<S>{}) || can_step<kernel_of<S>>(slot_sequence<S>{});
  else
    return false;
}
template <class S>
consteval bool is_reducing() {
  return requires {
    typename kernel_of<S>;
    S::needs.per_tensor;
  };
}
}  // namespace detail

/// A stage that needs the element and its own slots only.
template <class S>
concept elementwise_stage = detail::is_elementwise<S>();
/// A stage that needs sums first.
template <class S>
concept reducing_stage = detail::is_reducing<S>();
/// What a chain is made of.
template <class S>
concept stage = elementwise_stage<S> || reducing_stage<S> || tensorwise_stage<S>;

namespace detail {
/// A stage whose slots no function of its kernel can change: a misspelt advance would otherwise be left out in silence.
template <class S>
consteval bool keeps_slots_still() {
  if constexpr ((elementwise_stage<S> || reducing_stage<S>)&&!tensorwise_stage<S> && has_any<slot_count<S>>)
    return !can_advance<kernel_of<S>>(slot_sequence<S>{}) &&
           !can_advance_with_weight<kernel_of<S>>(slot_sequence<S>{}) && !can_step<kernel_of<S>>(slot_sequence<S>{});
  else
    return false;
}
}  // namespace detail

/// A stage that changes slots, and so cannot be undone when the step turns out to be skipped.
template <class S>
inline constexpr bool has_slots = slot_count<S> > 0 || tensorwise_stage<S>;

/// A stage whose update depends on slots that it replaces: it is evaluated once a step.
template <class S>
inline constexpr bool evaluated_once = [] {
  if constexpr (elementwise_stage<S>)
    return !detail::can_emit<kernel_of<S>>(detail::slot_sequence<S>{});
  else
    return false;
}();

/// Sums that a reducing stage measures itself; 0 if it asks for norms.
template <class S>
inline constexpr std::size_t measure_count = [] {
  if constexpr (reducing_stage<S>)
    return detail::measured<kernel_of<S>>(detail::slot_sequence<S>{});
  else
    return std::size_t{0};
}();

namespace detail {
template <class S>
inline constexpr bool measures = has_any<measure_count<S>>;

/// The factors of a reducing stage, from its sums (those it measures, or the squares of update and weight) and scalars.
template <class S, std::size_t... I>
DOVETAIL_HD constexpr auto factor_of(kernel_of<S> const& kernel, double const* sums, double* scalars,
                                     std::index_sequence<I...>) {
  if constexpr (has_any<measure_count<S>>) {
    std::array<double, measure_count<S>> measured{};
    for (std::size_t i = 0; i < measure_count<S>; ++i) measured[i] = sums[i];
    return kernel.factor(measured, scalars[I]...);
  } else {
    return kernel.factor(norms{std::sqrt(sums[0]), S::needs.weight_norm ? std::sqrt(sums[1]) : 0}, scalars[I]...);
  }
}
template <class S, std::size_t... I>
consteval bool has_factor(std::index_sequence<I...>) {
  using sums = std::conditional_t<(measure_count<S> > 0), std::array<double, measure_count<S>>, norms>;
  return requires(kernel_of<S> const k, sums const s, double x) { k.factor(s, (static_cast<void>(I), x)...); };
}
}  // namespace detail

/// A reducing stage that passes the update through: the next reduction can share its pass.
template <class S>
inline constexpr bool passes_through = [] {
  if constexpr (reducing_stage<S>)
    return !detail::has_factor<S>(std::make_index_sequence<scalar_count<S>>{});
  else
    return false;
}();

/// Numbers that a reducing stage makes of its sums.
template <class S>
inline constexpr std::size_t factor_count = [] {
  if constexpr (reducing_stage<S> && !passes_through<S>) {
    using result = decltype(detail::factor_of<S>(std::declval<kernel_of<S> const&>(), nullptr, nullptr,
                                                 std::make_index_sequence<scalar_count<S>>{}));
    if constexpr (requires { std::tuple_size<result>::value; })
      return std::tuple_size<result>::value;
    else
      return std::size_t{1};
  } else {
    return std::size_t{0};
  }
}();

/// A stage whose kernel is told the loss of the step.
template <class S>
inline constexpr bool wants_loss = detail::told_of_losses<kernel_of<S>>;

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
inline constexpr bool after_learning_rate = [] {
  if constexpr (requires { S::after_learning_rate; })
    return S::after_learning_rate;
  else
    return false;
}();

/// A stage whose slots hold earlier weights. It uses weight - slot, so rounding the slot would destroy the update.
template <class S>
inline constexpr bool slots_hold_weights = [] {
  if constexpr (requires { S::slots_hold_weights; })
    return S::slots_hold_weights;
  else
    return false;
}();

/// A stage that magnifies what rounding does to its slots: it divides by a difference of them, of which nothing is left
/// where they are nearly equal, or finds its rate from them.
template <class S>
inline constexpr bool exact_slots = [] {
  if constexpr (requires { S::exact_slots; })
    return S::exact_slots;
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

template <class K, class Scalar, std::size_t... C>
DOVETAIL_HD constexpr void begin_with(K& kernel, Scalar const& scalar, std::index_sequence<C...>) {
  kernel.begin(scalar(C)...);
}
/// Tells a kernel what its stage remembers of all tensors together; `scalar(c)` is scalar c.
template <class S, class Scalar>
DOVETAIL_HD constexpr void begin_stage([[maybe_unused]] kernel_of<S>& kernel, [[maybe_unused]] Scalar const& scalar) {
  constexpr auto own = std::make_index_sequence<scalar_count<S>>{};
  if constexpr (can_begin<kernel_of<S>>(own)) begin_with(kernel, scalar, own);
}

/// Advances the slots of one stage.
template <class S, class T, std::size_t... I>
DOVETAIL_INLINE constexpr void advance_stage(kernel_of<S> const& kernel, [[maybe_unused]] T w, [[maybe_unused]] T u,
                                             [[maybe_unused]] T* slots, std::index_sequence<I...> own) {
  if constexpr (can_advance_with_weight<kernel_of<S>>(own))
    kernel.advance(w, u, slots[I]...);
  else if constexpr (can_advance<kernel_of<S>>(own))
    kernel.advance(u, slots[I]...);
}

/// Applies one stage to the update `u`: advances its slots if `Advance`, then emits. A reducing stage had advanced
/// before it measured.
template <class S, bool Advance, class T, std::size_t... I, std::size_t... F>
DOVETAIL_INLINE constexpr T apply_stage([[maybe_unused]] kernel_of<S> const& kernel, [[maybe_unused]] T w, T u,
                                        [[maybe_unused]] T* slots, [[maybe_unused]] T const* factors,
                                        std::index_sequence<I...> own, std::index_sequence<F...>) {
  if constexpr (reducing_stage<S>) {
    if constexpr (passes_through<S>)
      return u;
    else
      return kernel.emit(w, u, slots[I]..., factors[F]...);
  } else if constexpr (tensorwise_stage<S>) {
    return u;
  } else if constexpr (evaluated_once<S>) {
    return kernel.step(w, u, slots[I]...);
  } else {
    if constexpr (Advance) advance_stage<S>(kernel, w, u, slots, own);
    return kernel.emit(w, u, slots[I]...);
  }
}

}  // namespace detail

}  // namespace dovetail::optim
