// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/step.hpp>

// The only place that looks at the members of optimizers. The least optimizer has
//
//   state init(parameter_list const&) const                       a copyable state that lists its tensors by name
//   step_result step(parameter_list const&, state&) const
//
// and trains, is saved and goes on under every synchronizer but sync::shard. It may have more:
//
//   step(parameters, state, step_context const&)                  threads, loss, sums and work that ranks divide; it
//     multiplies gradients by gradient_factor as it reads them
//   step(parameters, state, source, step_context const&)          gradients that are not the list's own fp32
//   void check_state(parameters, state const&) const              throws argument_error before anything changes
//   void check_next_step(parameters, state const&, step_context const&) const
//     throws argument_error, before anything changes, for what else its next step would refuse: optim::partition asks
//     all of its rules before one of them steps
//   void contribute(parameters, state const&, std::size_t first, std::span<float> gradients, int ranks) const
//     ranks are to agree on something else than the gradient, such as an average of it (sync/one_bit_adam.hpp): makes
//     of a rank's gradients of the flat range that begins at `first` what is added up in their stead. Changes no state.
//     Its step then gets the sums, and step_context::contributed; without that it gets gradients
//   static constexpr rule_needs needs{…}                          what its steps need (optim/rule_needs.hpp). One that
//     says nothing needs gradients, and whole tensors; one that needs whole_tensors = false works on any range of
//     elements. If it needs
//       layers       observe(parameters, state, kfac_statistics const&) takes in a layer, and
//                    unreduced_statistics(parameters, state) lists what that has gathered since the last step: spans,
//                    which ranks add up before it, and zero to forget it
//       curvature    bool observe(parameters, state, hessian_diagonal) takes in an estimate; false: it is not finite
//   rule_needs chosen_needs() const                               of an optimizer that is chosen when the program runs:
//     which of what it may need it does need
//
// and to be divided by sync::shard, a state with divisible_arrays() (optim/sharding.hpp). A member of these names that
// cannot be called so is refused.

namespace dovetail {
template <class T>
struct basic_kfac_statistics;
using kfac_statistics = basic_kfac_statistics<float>;
}  // namespace dovetail

namespace dovetail::optim {

/// In place of a block: all elements of a tensor belong together.
inline constexpr std::size_t undivided = static_cast<std::size_t>(-1);

namespace detail {
template <rule_needs>
struct constant;
template <class O>
concept has_static_needs = requires {
  requires !std::is_member_object_pointer_v<decltype(&O::needs)>;
};
template <class O>
concept says_needs = has_static_needs<O> && requires {
  requires std::is_convertible_v<decltype((O::needs)), rule_needs>;  // not in parentheses, which would take a bool
  typename constant<static_cast<rule_needs>(O::needs)>;
};
}  // namespace detail

namespace detail::optimizer_members {
DOVETAIL_MEMBER_FUNCTION(check_state)
DOVETAIL_MEMBER_FUNCTION(check_next_step)
DOVETAIL_MEMBER_FUNCTION(contribute)
DOVETAIL_MEMBER_CONSTANT(division_block)
DOVETAIL_MEMBER_CONSTANT(steps_together)
}  // namespace detail::optimizer_members

/// Of its steps on lists of numbers T.
template <class O, class T = float>
struct optimizer_traits {
  using list = basic_parameter_list<T>;
  using state_type = std::remove_cvref_t<decltype(std::declval<O const&>().init(std::declval<list const&>()))>;

  static constexpr bool takes_context = requires(O const& o, list const& p, state_type& s, step_context const& x) {
    { o.step(p, s, x) } -> std::convertible_to<step_result>;
  };
  template <class Source>
  static constexpr bool takes_source = requires(O const& o, list const& p, state_type& s, Source const& source,
                                                step_context const& x) {
    { o.step(p, s, source, x) } -> std::convertible_to<step_result>;
  };
  /// What it needs, or may need if it is chosen when the program runs.
  static constexpr rule_needs needs = [] {
    if constexpr (detail::says_needs<O>)
      return static_cast<rule_needs>(O::needs);
    else
      return rule_needs{};
  }();
  /// Elements of a tensor between which bounds of its parts cannot lie (optim/sharding.hpp); `undivided`: all of them.
  static constexpr std::size_t division_block = [] {
    if constexpr (needs.whole_tensors)
      return undivided;
    else
      return detail::optimizer_members::division_block_or<O>(std::size_t{1});
  }();
  /// A step is itself an exchange between ranks, as that of sync::shard is.
  static constexpr bool steps_together = detail::optimizer_members::steps_together_or<O>(false);
  static constexpr bool chosen_when_run = requires(O const& o) {
    { o.chosen_needs() } -> std::convertible_to<rule_needs>;
  };
  static constexpr bool checks_states = requires(O const& o, list const& p, state_type const& s) {
    o.check_state(p, s);
  };
  static constexpr bool checks_next_steps =
      requires(O const& o, list const& p, state_type const& s, step_context const& x) {
    o.check_next_step(p, s, x);
  };
  static constexpr bool contributes =
      requires(O const& o, list const& p, state_type const& s, std::span<T> gradients, int ranks) {
    o.contribute(p, s, std::size_t{}, gradients, ranks);
  };
  /// After a step of parts, it hands on what else than weights depends on elements: share(parameters, state, exchange).
  template <class Exchange>
  static constexpr bool shares = requires(O const& o, list const& p, state_type& s, Exchange const& e) {
    o.share(p, s, e);
  };
};

/// What an optimizer's steps do need.
template <class T = float, class O>
constexpr rule_needs needs_of(O const& o) {
  using traits = optimizer_traits<O, T>;
  if constexpr (traits::chosen_when_run)
    return o.chosen_needs();
  else
    return traits::needs;
}

namespace detail {

/// Refuses, inside of another optimizer, one that has ranks agree on something else than gradients.
template <class O, class T = float>
struct must_take_gradients {
  DOVETAIL_REQUIRE((!optimizer_traits<O, T>::contributes),
                   "has ranks agree on what it contributes, and not on gradients: step it by itself, under "
                   "sync::all_reduce",
                   O);
  static constexpr bool holds = true;
};

/// Refuses an optimizer with a member that would be left out.
template <class O, class T = float>
struct must_be_an_optimizer {
  using traits = optimizer_traits<O, T>;
  using S = typename traits::state_type;
  using list = basic_parameter_list<T>;
  static constexpr bool layers = requires(O const& o, list& p, S& s, basic_kfac_statistics<T> const& f) {
    o.observe(p, s, f);
    o.unreduced_statistics(p, s);
  };
  static constexpr bool curvature = requires(O const& o, list& p, S& s, basic_hessian_diagonal<T> const& h) {
    { o.observe(p, s, h) } -> std::convertible_to<bool>;
  };
  static constexpr bool said = says_needs<O>;
  static constexpr bool says_else = requires { O::needs; }
  &&!said;
  DOVETAIL_REQUIRE(!says_else, "its `needs` is not `static constexpr optim::rule_needs needs{...}`", O);
  DOVETAIL_REQUIRE(!traits::needs.layers || layers,
                   "says that it needs layers, and has not observe(parameters, state, kfac_statistics const&) and "
                   "unreduced_statistics(parameters, state), both const",
                   O);
  static constexpr bool constants = !says_else && !optimizer_members::steps_together_misfits<O, bool>() &&
                                    !optimizer_members::division_block_misfits<O, std::size_t>();
  DOVETAIL_REQUIRE(says_else || constants,
                   "what it says of itself is not `static constexpr bool steps_together`, or `static constexpr "
                   "std::size_t division_block`",
                   O);
  static constexpr bool unsaid = (layers || curvature) && !said;
  DOVETAIL_REQUIRE(
      !unsaid,
      "has observe, and does not say `static constexpr optim::rule_needs needs{.layers = true}` (or .curvature): it "
      "would never be called",
      O);
  DOVETAIL_REQUIRE(!traits::needs.curvature || curvature,
                   "says that it needs curvature, and has not bool observe(parameters, state, hessian_diagonal) const",
                   O);
  DOVETAIL_REQUIRE(!traits::needs.loss || traits::takes_context,
                   "says that it needs the loss, and its step does not take it: step(parameters, state, step_context "
                   "const&) const",
                   O);
  static constexpr bool checks = traits::checks_states || !optimizer_members::has_check_state<O>;
  DOVETAIL_REQUIRE(checks, "its check_state cannot be called as check_state(parameter_list const&, state const&) const",
                   O);
  static constexpr bool checks_next = traits::checks_next_steps || !optimizer_members::has_check_next_step<O>;
  DOVETAIL_REQUIRE(checks_next,
                   "its check_next_step cannot be called as check_next_step(parameter_list const&, state const&, "
                   "step_context const&) const",
                   O);
  static constexpr bool contributes = traits::contributes || !optimizer_members::has_contribute<O>;
  DOVETAIL_REQUIRE(contributes,
                   "its contribute cannot be called as contribute(parameter_list const&, state const&, std::size_t "
                   "first, std::span<float> gradients, int ranks) const",
                   O);
  DOVETAIL_REQUIRE(!traits::contributes || traits::takes_context,
                   "has contribute, and its step does not take the context that says whether it was called: "
                   "step(parameters, state, step_context const&) const",
                   O);
  static constexpr bool holds = constants && contributes && (!traits::contributes || traits::takes_context) && (!traits::needs.layers || layers) && !unsaid &&
                                (!traits::needs.curvature || curvature) &&
                                (!traits::needs.loss || traits::takes_context) && checks && checks_next;
};

/// Throws argument_error for what a rule would refuse in its next step beside a state that does not fit: what holds
/// several rules asks before one of them steps.
template <class Rule, class T, class State>
void check_next_step(Rule const& rule, basic_parameter_list<T> const& p, State const& s, step_context const& context) {
  static_assert(must_be_an_optimizer<Rule, T>::holds);
  if constexpr (optimizer_traits<Rule, T>::checks_next_steps)
    rule.check_next_step(p, s, context);
  else if constexpr (requires { rule.stages().check_next_step(p, s, context); })
    rule.stages().check_next_step(p, s, context);
  else if constexpr (requires { rule.learning_rate(s.steps()); })
    check_rate(rule.learning_rate(s.steps() + 1), s.steps() + 1);
}

/// A step of an optimizer that takes no context, on gradients times the factor.
template <class O, class T, class State>
step_result step_plainly(O const& o, basic_parameter_list<T> const& p, State& s, step_context const& context) {
  check_factor("step_context", context.gradient_factor);
  if (context.gradient_factor != 1)
    for (auto const& x : p)
      for (T& g : x.gradient) g *= context.gradient_factor;
  return o.step(p, s);
}

}  // namespace detail

/// Forgets what layers have shown since the last step.
template <class O, class T, class State>
void forget_observed(O const& o, basic_parameter_list<T> const& p, State& s) {
  for (auto const sums : o.unreduced_statistics(p, s)) std::fill(sums.begin(), sums.end(), T{0});
}

/// One step, with the context if the optimizer takes one.
template <class O, class T, class State>
step_result step_optimizer(O const& o, basic_parameter_list<T> const& p, State& s, step_context const& context) {
  static_assert(detail::must_be_an_optimizer<O, T>::holds);
  if constexpr (optimizer_traits<O, T>::takes_context)
    return o.step(p, s, context);
  else
    return detail::step_plainly(o, p, s, context);
}
/// The same from a source of gradients. One that takes none reads the list's own.
template <class O, class T, class State, class Source>
step_result step_optimizer(O const& o, basic_parameter_list<T> const& p, State& s, Source const& source,
                           step_context const& context) {
  static_assert(detail::must_be_an_optimizer<O, T>::holds);
  if constexpr (optimizer_traits<O, T>::template takes_source<Source>) {
    return o.step(p, s, source, context);
  } else {
    DOVETAIL_REQUIRE((std::is_same_v<Source, gradient::dense>),
                     "reads the gradients of its parameter list only: to step it from this source it needs "
                     "step(parameters, state, source, step_context const&) const",
                     O, Source);
    return step_optimizer(o, p, s, context);
  }
}

}  // namespace dovetail::optim
