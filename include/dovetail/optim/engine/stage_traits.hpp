// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/core/simd.hpp>
#include <dovetail/optim/stage.hpp>

// The only place that looks at the members of stages: what an engine may ask of one. That every member is what
// stage.hpp says is checked in optim/engine/stage_check.hpp.

namespace dovetail {
template <class T>
struct basic_kfac_statistics;
using kfac_statistics = basic_kfac_statistics<float>;
struct shape;
}  // namespace dovetail

namespace dovetail::optim {

// optim/tensorwise.hpp
template <class T>
class basic_host_algebra;
using host_algebra = basic_host_algebra<float>;
template <class Algebra>
struct basic_tensor_update;
using tensor_update = basic_tensor_update<host_algebra>;

namespace detail {

/// What stands for a tensorwise stage among the kernels of a step.
template <class S>
struct whole_stage {
  S const* stage = nullptr;
};

template <class S, class Kind>
concept says_kind = requires {
  requires std::same_as<typename S::kind, Kind>;
};
/// The names of a stage's slots or scalars: an array of strings.
template <class A>
concept names = requires(A const& a) {
  { a[0] } -> std::convertible_to<char const*>;
  std::tuple_size<std::remove_cvref_t<A>>::value;
};

template <std::size_t N>
using upto = std::make_index_sequence<N>;

/// `Number` const: a function that changes its slots is none, since it may be evaluated again.
template <class K, class Number = simd::tracer const, std::size_t... I>
consteval bool can_emit(std::index_sequence<I...>) {
  return requires(K const k, Number t) {
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
template <class A>
inline constexpr std::size_t products = 0;
template <std::size_t N>
inline constexpr std::size_t products<std::array<product<simd::tracer>, N>> = N;
template <class K, std::size_t... I>
consteval std::size_t measured(std::index_sequence<I...>) {
  if constexpr (requires(K const k, simd::tracer const t) { k.measure(t, t, (static_cast<void>(I), t)...); })
    return products<decltype(std::declval<K const&>().measure(
        std::declval<simd::tracer const&>(), std::declval<simd::tracer const&>(),
        (static_cast<void>(I), std::declval<simd::tracer const&>())...))>;
  else
    return 0;
}
template <class K, class Sums, std::size_t... I>
consteval bool can_make_factor(std::index_sequence<I...>) {
  return requires(K const k, Sums const s, double x) { k.factor(s, (static_cast<void>(I), x)...); };
}
/// Numbers in what a `factor` returns; 0 of what is no number and no array of them.
template <class Result>
inline constexpr std::size_t numbers_in = std::is_arithmetic_v<Result>;
template <class Number, std::size_t N>
inline constexpr std::size_t numbers_in<std::array<Number, N>> = std::is_arithmetic_v<Number> ? N : 0;
template <class K, class Sums, std::size_t... I>
consteval std::size_t factors_made(std::index_sequence<I...>) {
  if constexpr (can_make_factor<K, Sums>(std::index_sequence<I...>{})) {
    double x = 0;
    return numbers_in<std::remove_cvref_t<decltype(std::declval<K const&>().factor(std::declval<Sums const&>(),
                                                                                   (static_cast<void>(I), x)...))>>;
  } else {
    return 0;
  }
}

template <class S, bool Tensorwise, bool TakesRate>
struct kernel_type {  // found when it is asked for, so that a type that is no stage can be refused with a reason
  using type = void;
};
template <class S, bool TakesRate>
struct kernel_type<S, true, TakesRate> {
  using type = whole_stage<S>;
};
template <class S>
requires requires(S const& s) { s.prepare(std::int64_t{1}); }
struct kernel_type<S, false, false> {
  using type = decltype(std::declval<S const&>().prepare(std::int64_t{1}));
};
template <class S>
struct kernel_type<S, false, true> {
  using type = decltype(std::declval<S const&>().prepare(std::int64_t{1}, 1.0f));
};

}  // namespace detail

/// What a stage is and has: the answers of all questions that an engine asks.
template <class S>
struct stage_traits {
  static constexpr bool is_elementwise = detail::says_kind<S, elementwise>;
  static constexpr bool is_reducing = detail::says_kind<S, reducing>;
  static constexpr bool is_tensorwise = detail::says_kind<S, tensorwise>;
  static constexpr bool has_kind = is_elementwise || is_reducing || is_tensorwise;

  /// prepare(t, rate), of a stage with a learning rate.
  static constexpr bool takes_rate = requires(S const& s) {
    { s.learning_rate(std::int64_t{1}) } -> std::convertible_to<float>;
    s.prepare(std::int64_t{1}, 1.0f);
  };
  static constexpr bool has_rate = requires(S const& s) {
    { s.learning_rate(std::int64_t{1}) } -> std::convertible_to<float>;
  };
  using kernel = typename detail::kernel_type<S, is_tensorwise, takes_rate>::type;

  /// The functions of its kernel get the gradient, too.
  static constexpr bool reads_gradient = requires { requires bool(S::reads_gradient); };

  /// Slots; numbers that a reducing stage remembers.
  static constexpr std::size_t slots = [] {
    if constexpr (requires { requires detail::names<decltype(S::slots)>; })
      return S::slots.size();
    else
      return std::size_t{0};
  }();
  static constexpr std::size_t scalars = [] {
    if constexpr (requires { requires detail::names<decltype(S::scalars)>; })
      return S::scalars.size();
    else
      return std::size_t{0};
  }();
  static constexpr reduction needs = [] {
    if constexpr (is_reducing &&
                  requires { requires std::same_as<std::remove_cvref_t<decltype(S::needs)>, reduction>; })
      return S::needs;
    else
      return reduction{};
  }();

  /// What a function of the kernel gets behind the update: the gradient, if the stage reads it, and the slots.
  static constexpr std::size_t arguments = std::size_t{reads_gradient} + slots;

  /// Sums that a reducing stage measures itself; 0 if it asks for norms.
  static constexpr std::size_t measured = is_reducing ? detail::measured<kernel>(detail::upto<arguments>{}) : 0;
  using sums = std::conditional_t<(measured > 0), std::array<double, measured>, norms>;
  /// Numbers that a reducing stage makes of its sums.
  static constexpr std::size_t factors = is_reducing ? detail::factors_made<kernel, sums>(detail::upto<scalars>{}) : 0;
  /// A reducing stage that makes none passes the update through: the next reduction can share its pass.
  static constexpr bool passes_through = is_reducing && factors == 0;

  static constexpr bool advances_with_weight =
      (is_elementwise || is_reducing) && detail::can_advance_with_weight<kernel>(detail::upto<arguments>{});
  static constexpr bool advances = advances_with_weight || ((is_elementwise || is_reducing) &&
                                                            detail::can_advance<kernel>(detail::upto<arguments>{}));
  /// A stage whose update depends on slots that it replaces: it is evaluated once a step.
  static constexpr bool evaluated_once = is_elementwise && !detail::can_emit<kernel>(detail::upto<arguments>{});
  /// A stage that changes slots, and so cannot be undone when the step turns out to be skipped.
  static constexpr bool has_slots = slots > 0 || is_tensorwise;
  static constexpr bool begins = detail::can_begin<kernel>(detail::upto<scalars>{});
  static constexpr bool wants_loss = detail::told_of_losses<kernel>;

  // What the stage says of itself; false by default.
  static constexpr bool ends_chain = requires { requires bool(S::ends_chain); };
  static constexpr bool after_learning_rate = requires { requires bool(S::after_learning_rate); };
  static constexpr bool precedes_state = requires { requires bool(S::precedes_state); };
  static constexpr bool slots_hold_weights = requires { requires bool(S::slots_hold_weights); };
  static constexpr bool exact_slots = requires { requires bool(S::exact_slots); };
  static constexpr bool sets_initial_values = requires(S const& s) {
    { s.initial_value(std::size_t{0}) } -> std::convertible_to<float>;
  };
  static constexpr bool sets_initial_scalars = requires(S const& s) {
    { s.initial_scalar(std::size_t{0}) } -> std::convertible_to<double>;
  };

  /// It divides by the diagonal of the Hessian, of which it is given estimates between steps.
  static constexpr bool observes_curvature = requires(S const& s) {
    requires(S::curvature_slot < slots);
    { s.observed(1.0f, 1.0f) } -> std::convertible_to<float>;
  };

  // Of a tensorwise stage (optim/tensorwise.hpp).
  static constexpr bool has_arrays = requires(S const& s, shape const& x) { s.arrays(x); };
  /// Work that ranks can divide.
  static constexpr bool solves = requires(S const& s, tensor_update const& t) { s.solve(t); };
  /// It learns from layers.
  static constexpr bool collects = requires(S const& s, tensor_update const& t, kfac_statistics const& f) {
    s.collect(t, f);
  };
};

template <class S>
using kernel_of = typename stage_traits<S>::kernel;

}  // namespace dovetail::optim
