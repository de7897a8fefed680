// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/engine/stage_calls.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/stage.hpp>

// Stages are what optim/stage.hpp says, or do not compile: a member function is found by its name, whatever its
// signature, and one that cannot be called as it must be is refused, so that no function is left out in silence.

namespace dovetail::optim {

namespace detail {

DOVETAIL_MEMBER_FUNCTION(advance)
DOVETAIL_MEMBER_FUNCTION(emit)
DOVETAIL_MEMBER_FUNCTION(step)
DOVETAIL_MEMBER_FUNCTION(measure)
DOVETAIL_MEMBER_FUNCTION(factor)
DOVETAIL_MEMBER_FUNCTION(begin)
DOVETAIL_MEMBER_FUNCTION(evaluated)
DOVETAIL_MEMBER_FUNCTION(prepare)
DOVETAIL_MEMBER_FUNCTION(learning_rate)
DOVETAIL_MEMBER_FUNCTION(initial_value)
DOVETAIL_MEMBER_FUNCTION(initial_scalar)
DOVETAIL_MEMBER_FUNCTION(check)
DOVETAIL_MEMBER_FUNCTION(observed)
DOVETAIL_MEMBER_FUNCTION(arrays)
DOVETAIL_MEMBER_FUNCTION(apply)
DOVETAIL_MEMBER_FUNCTION(observe)
DOVETAIL_MEMBER_FUNCTION(solve)
DOVETAIL_MEMBER_FUNCTION(solution)
DOVETAIL_MEMBER_FUNCTION(cost)
DOVETAIL_MEMBER_FUNCTION(due)
DOVETAIL_MEMBER_FUNCTION(collect)
DOVETAIL_MEMBER_FUNCTION(unreduced_statistics)
template <class S>
inline constexpr bool has_needs = requires {
  S::needs;
};
template <class S>
inline constexpr bool has_slots = requires {
  S::slots;
};
template <class S>
inline constexpr bool has_scalars = requires {
  S::scalars;
};

/// A whole number and one that is not, which convert to nothing else: prepare(rate, step) can be called with a step and
/// a rate, and would take the one for the other.
struct any_whole {
  template <std::integral I>
  operator I() const;
};
struct any_real {
  template <std::floating_point F>
  operator F() const;
};
/// Each question only behind the one before it: where a parameter is a template's and the return type is deduced, to
/// ask compiles the function with what is passed, which has to be a number then.
template <class S>
consteval bool has_swapped_prepare() {
  if constexpr (!requires(S const& s) { s.prepare({}, 1.0f); })  // or the first parameter may be anything
    return false;
  else if constexpr (!requires(S const& s) { s.prepare(any_real{}, any_whole{}); })
    return false;
  else if constexpr (requires(S const& s) { s.prepare(any_whole{}, any_real{}); })
    return false;
  else
    return true;
}

/// A flag of a stage that is not `static constexpr`, and so would not be seen.
template <class S>
consteval bool has_inconstant_flag() {
#define DOVETAIL_INCONSTANT(name) \
  (                               \
      requires { S::name; } && !requires { typename std::bool_constant<bool(S::name)>; })
  return DOVETAIL_INCONSTANT(ends_chain) || DOVETAIL_INCONSTANT(after_learning_rate) ||
         DOVETAIL_INCONSTANT(precedes_state) || DOVETAIL_INCONSTANT(slots_hold_weights) ||
         DOVETAIL_INCONSTANT(exact_slots) || DOVETAIL_INCONSTANT(reads_gradient);
#undef DOVETAIL_INCONSTANT
}

/// The first slot that no function of the stage's kernel changes, in a step of numbers that only remember what they
/// were made of; `slots` if there is none.
template <class S>
consteval std::size_t first_idle_slot() {
  using traits = stage_traits<S>;
  simd::tracer slot[traits::slots + 1]{};
  for (std::size_t i = 0; i < traits::slots; ++i) slot[i] = simd::tracer::input(static_cast<int>(i) + 2);
  auto const w = simd::tracer::input(0), u = simd::tracer::input(1);
  kernel_of<S> const k{};
  [&]<std::size_t... I, std::size_t... G>(std::index_sequence<I...>, std::index_sequence<G...>) {
    if constexpr (traits::evaluated_once)
      static_cast<void>(k.step(w, u, each_time<G>(u)..., slot[I]...));
    else
      advance_stage<S>(k, element_of<simd::tracer>{w, u, u}, slot, std::index_sequence<I...>{},
                       std::index_sequence<G...>{});
  }
  (upto<traits::slots>{}, gradient_argument<S>{});
  for (std::size_t i = 0; i < traits::slots; ++i) {
    if constexpr (traits::observes_curvature)
      if (i == S::curvature_slot) continue;
    if (slot[i].untouched && slot[i].inputs == simd::tracer::input(static_cast<int>(i) + 2).inputs) return i;
  }
  return traits::slots;
}

/// A slot's name as a type, for the compiler's message.
template <fixed_string Name>
struct slot_called;
template <class S, std::size_t I>
consteval auto slot_name() {
  constexpr std::size_t length = [] {
    std::size_t n = 0;
    while (S::slots[I][n]) ++n;
    return n;
  }();
  char name[length + 1]{};
  for (std::size_t i = 0; i < length; ++i) name[i] = S::slots[I][i];
  return fixed_string<length + 1>(name);
}

/// Each breach of stage.hpp, in the order in which they are looked for.
enum class stage_fault {
  none,
  no_kind,
  flag,
  slots,
  scalars,
  needs,
  prepare,
  rate,
  no_kernel,
  emit_and_step,
  emit_of_slots,
  step_and_advance,
  variadic,
  advance,
  advance_of_nothing,
  measure,
  factor,
  measure_for_nothing,
  emit_for_nothing,
  begin,
  step,
  emit,
  evaluated,
  idle_slot,
  initial_value,
  initial_scalar,
  check,
  curvature,
  whole_arrays,
  whole_apply,
  whole_observe,
  whole_solve,
  whole_collect,
  whole_of_nothing
};

template <class S>
consteval stage_fault fault_of_kernel() {
  using traits = stage_traits<S>;
  using K = kernel_of<S>;
  constexpr auto own = upto<traits::arguments>{};
  constexpr auto with_factors = upto<traits::arguments + traits::factors>{};
  if constexpr (!std::is_class_v<K> || std::is_final_v<K> || !std::is_default_constructible_v<K>) {
    return stage_fault::no_kernel;
  } else {
    using enum stage_fault;
    if (has_emit<K> && has_step<K>) return emit_and_step;
    if (has_emit<K> && !can_emit<K>(with_factors) && can_emit<K, simd::tracer>(with_factors)) return emit_of_slots;
    if (has_step<K> && has_advance<K>) return step_and_advance;
    if (has_advance<K>) {
      if (can_advance<K>(own) && can_advance_with_weight<K>(own)) return variadic;
      if (!traits::advances) return traits::slots ? advance : advance_of_nothing;
      if (traits::slots == 0) return advance_of_nothing;
    }
    if (has_measure<K> && traits::measured == 0) return measure;
    if (has_factor<K> && traits::factors == 0) return factor;
    if (has_measure<K> && !has_factor<K>) return measure_for_nothing;
    if (traits::is_reducing && has_emit<K> && !has_factor<K>) return emit_for_nothing;
    if (has_begin<K> && (!traits::begins || traits::needs.per_tensor)) return begin;
    if (has_step<K>) {
      if (!traits::is_elementwise || !can_step<K>(own)) return step;
    } else if (traits::is_elementwise || traits::factors || has_emit<K>) {
      if (!can_emit<K>(with_factors)) return emit;
      if (can_emit<K>(upto<traits::arguments + traits::factors + 1>{})) return variadic;
    }
    if (has_evaluated<K> && !traits::wants_loss) return evaluated;
    return none;
  }
}

template <class S>
consteval stage_fault fault_of_whole() {
  using enum stage_fault;
  using traits = stage_traits<S>;
  constexpr bool applies = requires(S const& s, tensor_update const& t) { s.apply(t); };
  constexpr bool observes = requires(S const& s, tensor_update const& t) { s.observe(t); };
  if (has_arrays<S> && !traits::has_arrays) return whole_arrays;
  if (has_apply<S> && !applies) return whole_apply;
  if (has_observe<S> && !observes) return whole_observe;
  if ((has_solve<S> || has_solution<S> || has_cost<S>)&&!requires(S const& s, tensor_update const& t, shape const& x) {
        s.solve(t);
        s.solution(t);
        { s.cost(x) } -> std::convertible_to<double>;
      })
    return whole_solve;
  if (has_due<S> && !requires(S const& s) {
        { s.due(std::int64_t{1}) } -> std::convertible_to<bool>;
      })
    return whole_solve;
  if ((has_collect<S> || has_unreduced_statistics<S>)&&!requires(S const& s, tensor_update const& t,
                                                                 kfac_statistics const& f) {
        s.collect(t, f);
        s.unreduced_statistics(t);
      })
    return whole_collect;
  if (!applies && !traits::solves) return whole_of_nothing;
  return none;
}

template <class S>
consteval stage_fault fault_of_stage() {
  using enum stage_fault;
  using traits = stage_traits<S>;
  if constexpr (!std::is_class_v<S> || std::is_final_v<S> || !traits::has_kind) {
    return no_kind;
  } else {
    if (has_inconstant_flag<S>()) return flag;
    if (has_slots<S> && !requires { requires names<decltype(S::slots)>; }) return slots;
    if (has_scalars<S> && !(traits::is_reducing && requires { requires names<decltype(S::scalars)>; })) return scalars;
    if (has_needs<S> != traits::is_reducing ||
        (traits::is_reducing && !requires { requires std::same_as<decltype(S::needs), reduction const>; }))
      return needs;
    if (has_learning_rate<S> && !(traits::has_rate && (traits::takes_rate || traits::is_tensorwise))) return rate;
    if (has_swapped_prepare<S>()) return rate;
    if (has_initial_value<S> && !traits::sets_initial_values) return initial_value;
    if (has_initial_scalar<S> && !(traits::sets_initial_scalars && traits::scalars)) return initial_scalar;
    if (has_check<S> && !requires(S const& s) { s.check(); }) return check;
    if ((has_observed<S> || requires { S::curvature_slot; }) && !traits::observes_curvature) return curvature;
    if constexpr (traits::is_tensorwise) {
      return fault_of_whole<S>();
    } else if constexpr (std::is_void_v<kernel_of<S>>) {
      return prepare;
    } else {
      if constexpr (fault_of_kernel<S>() != none)
        return fault_of_kernel<S>();
      else if constexpr (traits::slots > 0)
        return first_idle_slot<S>() < traits::slots ? idle_slot : none;
      else
        return none;
    }
  }
}

/// Refuses a stage for its first breach.
template <class S, stage_fault Fault>
struct check_stage {
  using enum stage_fault;
#define DOVETAIL_BREACH(fault, reason) DOVETAIL_REQUIRE(Fault != fault, reason, S)
  DOVETAIL_BREACH(no_kind,
                  "this is not a stage: a stage is a class, not final, that says `using kind = optim::elementwise` (or "
                  "optim::reducing, optim::tensorwise)");
  DOVETAIL_BREACH(flag,
                  "ends_chain, after_learning_rate, precedes_state, slots_hold_weights, exact_slots and reads_gradient "
                  "are `static constexpr bool`");
  DOVETAIL_BREACH(slots, "`slots` is not `static constexpr std::array slots{\"name\"...}`");
  DOVETAIL_BREACH(scalars, "`scalars` is not `static constexpr std::array scalars{\"name\"...}` of a reducing stage");
  DOVETAIL_BREACH(needs, "a reducing stage, and no other, says `static constexpr reduction needs{...}`");
  DOVETAIL_BREACH(prepare, "`prepare` cannot be called as `prepare(std::int64_t step) const`");
  DOVETAIL_BREACH(rate,
                  "a stage with a learning rate has `float learning_rate(std::int64_t step) const`, and its prepare "
                  "is `prepare(std::int64_t step, float rate) const`");
  DOVETAIL_BREACH(no_kernel, "what prepare returns is not a kernel: a class that is not final, with a default value");
  DOVETAIL_BREACH(emit_and_step, "the kernel has `emit` and `step`: it has one of them");
  DOVETAIL_BREACH(
      emit_of_slots,
      "the kernel's `emit` changes a slot, and may be evaluated again: it gets slots by value, `advance` or "
      "`step` changes them");
  DOVETAIL_BREACH(step_and_advance, "the kernel has `step` and `advance`: step changes the slots itself");
  DOVETAIL_BREACH(variadic,
                  "a function of the kernel can be called with more arguments than it gets: give it one "
                  "argument for each name in `slots`, no parameter pack");
  DOVETAIL_BREACH(advance,
                  "the kernel's `advance` cannot be called as `advance(u, slots&...) const` or `advance(w, u, "
                  "slots&...) const`, with one argument for each name in `slots`");
  DOVETAIL_BREACH(advance_of_nothing, "the kernel has `advance`, the stage no `slots` that it could change");
  DOVETAIL_BREACH(measure,
                  "the kernel's `measure` cannot be called as `std::array<product<T>, K> measure(w, u, slots...) "
                  "const`, with one argument for each name in `slots`, or the stage is not reducing");
  DOVETAIL_BREACH(factor,
                  "the kernel's `factor` cannot be called: it takes the norms, or the sums of its measure, then a "
                  "double& for each name in `scalars`, returns a float or a std::array of them, and the stage is "
                  "reducing");
  DOVETAIL_BREACH(measure_for_nothing, "the kernel has `measure` and no `factor` that takes the sums");
  DOVETAIL_BREACH(emit_for_nothing,
                  "the kernel of a reducing stage has `emit` and no `factor`: what it emits depends on "
                  "factors; without both it passes the update through");
  DOVETAIL_BREACH(begin,
                  "the kernel's `begin` cannot be called as `begin(scalars...)`, with one double for each name in "
                  "`scalars`, which are not per tensor");
  DOVETAIL_BREACH(step,
                  "the kernel's `step` cannot be called as `T step(w, u, slots&...) const`, with one argument for "
                  "each name in `slots`, or the stage is not elementwise");
  DOVETAIL_BREACH(
      emit,
      "the kernel's `emit` cannot be called as `T emit(w, u, slots..., factors...) const`, with one "
      "argument for each name in `slots` and each number that `factor` makes (and the gradient behind u, in all "
      "functions, if the stage says reads_gradient)");
  DOVETAIL_BREACH(evaluated, "the kernel's `evaluated` cannot be called as `evaluated(double loss)`");
  DOVETAIL_BREACH(initial_value, "`initial_value` cannot be called as `float initial_value(std::size_t slot) const`");
  DOVETAIL_BREACH(initial_scalar,
                  "`initial_scalar` cannot be called as `double initial_scalar(std::size_t scalar) "
                  "const`, or the stage has no `scalars`");
  DOVETAIL_BREACH(check, "`check` cannot be called as `check() const`");
  DOVETAIL_BREACH(
      curvature,
      "a stage that divides by the Hessian's diagonal has `static constexpr std::size_t curvature_slot`, the "
      "number of one of its slots, and `float observed(float slot, float estimate) const`");
  DOVETAIL_BREACH(whole_arrays, "`arrays` cannot be called as `std::vector<named_shape> arrays(shape const&) const`");
  DOVETAIL_BREACH(whole_apply, "`apply` cannot be called as `apply(tensor_update const&) const`");
  DOVETAIL_BREACH(whole_observe, "`observe` cannot be called as `observe(tensor_update const&) const`");
  DOVETAIL_BREACH(whole_solve,
                  "a stage whose work can be divided has `solve(tensor_update const&) const`, "
                  "`solution(tensor_update const&) const`, `double cost(shape const&) const` and perhaps "
                  "`bool due(std::int64_t step) const`");
  DOVETAIL_BREACH(whole_collect,
                  "a stage that learns from layers has `collect(tensor_update const&, kfac_statistics "
                  "const&) const` and `unreduced_statistics(tensor_update const&) const`");
  DOVETAIL_BREACH(whole_of_nothing, "a tensorwise stage has `apply(tensor_update const&) const` or `solve`");
#undef DOVETAIL_BREACH
  static constexpr bool holds = Fault == none;
};
template <class S>
struct check_stage<S, stage_fault::idle_slot> {
  DOVETAIL_REQUIRE(
      sizeof(S) == 0,
      "nothing changes this slot: the kernel has no `advance(u, slots&...) const`, `advance(w, u, slots&...) "
      "const` or `step` that assigns to it",
      S, slot_called<slot_name<S, first_idle_slot<S>()>()>);
  static constexpr bool holds = false;
};
template <class S>
struct check_stage<S, stage_fault::none> {
  static constexpr bool holds = true;
};
template <class S>
using must_be_a_stage = check_stage<S, fault_of_stage<S>()>;

}  // namespace detail

/// What a chain is made of.
template <class S>
concept stage = detail::fault_of_stage<S>()
== detail::stage_fault::none;
/// A stage that needs the element and its own slots only.
template <class S>
concept elementwise_stage = stage_traits<S>::is_elementwise && stage<S>;
/// A stage that needs sums first.
template <class S>
concept reducing_stage = stage_traits<S>::is_reducing && stage<S>;
/// A stage that maps the update of one tensor as a whole.
template <class S>
concept tensorwise_stage = stage_traits<S>::is_tensorwise && stage<S>;

}  // namespace dovetail::optim
