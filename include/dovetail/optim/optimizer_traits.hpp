// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/step_options.hpp>
#include <dovetail/optim/step_result.hpp>

// The only place that looks at the members of optimizers. The least optimizer has
//
//   state init(parameter_list const&) const                       a copyable state that lists its tensors by name
//   step_result step(parameter_list const&, state&) const
//
// and trains, is saved and goes on under every synchronizer but sync::shard. It may have more:
//
//   step(parameters, state, step_options const&)                  threads, loss, sums and work that ranks divide
//   step(parameters, state, source, step_options const&)          gradients that are not the list's own fp32
//   void check_state(parameters, state const&) const              throws argument_error before anything changes
//   static constexpr bool needs_loss = true                       its steps depend on step_options::loss
//   static constexpr bool observes = true                         it learns from layers: observe(parameters, state,
//     kfac_statistics const&), unreduced_statistics(parameters, state) and forget_observed(parameters, state), as
//     optim::chain has them
//   static constexpr bool whole_tensors = false                   it works on any range of elements; a rule that does
//     not declare it is taken to need whole tensors
//   rule_needs needs() const                                      of an optimizer that is chosen when the program runs:
//     which of these it does need; the constants then say which it may
//
// and to be divided by sync::shard, a state with divisible_arrays() (optim/sharding.hpp). A member of these names that
// cannot be called so is refused.

namespace dovetail {
struct kfac_statistics;
}

namespace dovetail::optim {

/// In place of a block: all elements of a tensor belong together.
inline constexpr std::size_t undivided = static_cast<std::size_t>(-1);

/// What a rule's steps need besides gradients.
struct rule_needs {
  bool layers = false;         ///< it learns from layers' inputs and output gradients
  bool loss = false;           ///< step_options::loss
  bool whole_tensors = false;  ///< what it has to work out ranks can divide by tensor only
  friend constexpr bool operator==(rule_needs const&, rule_needs const&) = default;
};

namespace detail::optimizer_members {
DOVETAIL_MEMBER_FUNCTION(check_state)
DOVETAIL_MEMBER_CONSTANT(observes)
DOVETAIL_MEMBER_CONSTANT(needs_loss)
DOVETAIL_MEMBER_CONSTANT(whole_tensors)
DOVETAIL_MEMBER_CONSTANT(division_block)
DOVETAIL_MEMBER_CONSTANT(steps_together)
}  // namespace detail::optimizer_members

template <class O>
struct optimizer_traits {
  using state_type =
      std::remove_cvref_t<decltype(std::declval<O const&>().init(std::declval<parameter_list const&>()))>;

  static constexpr bool takes_options =
      requires(O const& o, parameter_list const& p, state_type& s, step_options const& x) {
    { o.step(p, s, x) } -> std::convertible_to<step_result>;
  };
  template <class Source>
  static constexpr bool takes_source = requires(O const& o, parameter_list const& p, state_type& s,
                                                Source const& source, step_options const& x) {
    { o.step(p, s, source, x) } -> std::convertible_to<step_result>;
  };
  static constexpr bool observes = detail::optimizer_members::observes_or<O>(false);
  static constexpr bool needs_loss = detail::optimizer_members::needs_loss_or<O>(false);
  static constexpr bool says_whole_tensors = detail::optimizer_members::whole_tensors_fits<O, bool>;
  static constexpr bool whole_tensors = detail::optimizer_members::whole_tensors_or<O>(true);
  /// Elements of a tensor between which bounds of its parts cannot lie (optim/sharding.hpp); `undivided`: all of them.
  static constexpr std::size_t division_block = [] {
    if constexpr (whole_tensors)
      return undivided;
    else
      return detail::optimizer_members::division_block_or<O>(std::size_t{1});
  }();
  /// A step is itself an exchange between ranks, as that of sync::shard is.
  static constexpr bool steps_together = detail::optimizer_members::steps_together_or<O>(false);
  static constexpr bool chosen_when_run = requires(O const& o) {
    { o.needs() } -> std::convertible_to<rule_needs>;
  };
  static constexpr bool checks_states = requires(O const& o, parameter_list const& p, state_type const& s) {
    o.check_state(p, s);
  };
  /// After a step of parts, it hands on what else than weights depends on elements: share(parameters, state, exchange).
  template <class Exchange>
  static constexpr bool shares = requires(O const& o, parameter_list const& p, state_type& s, Exchange const& e) {
    o.share(p, s, e);
  };
};

/// What an optimizer's steps need.
template <class O>
constexpr rule_needs needs_of(O const& o) {
  using traits = optimizer_traits<O>;
  if constexpr (traits::chosen_when_run)
    return o.needs();
  else
    return {traits::observes, traits::needs_loss, traits::whole_tensors};
}

namespace detail {

/// Refuses an optimizer with a member that would be left out.
template <class O>
struct must_be_an_optimizer {
  using traits = optimizer_traits<O>;
  using S = typename traits::state_type;
  static constexpr bool layers = requires(O const& o, parameter_list& p, S& s, kfac_statistics const& f) {
    o.observe(p, s, f);
    o.unreduced_statistics(p, s);
    o.forget_observed(p, s);
  };
  DOVETAIL_REQUIRE(!traits::observes || layers,
                   "says that it observes, and has not observe(parameters, state, kfac_statistics const&), "
                   "unreduced_statistics(parameters, state) and forget_observed(parameters, state), all const",
                   O);
  static constexpr bool constants =
      !optimizer_members::observes_misfits<O, bool>() && !optimizer_members::needs_loss_misfits<O, bool>() &&
      !optimizer_members::whole_tensors_misfits<O, bool>() && !optimizer_members::steps_together_misfits<O, bool>() &&
      !optimizer_members::division_block_misfits<O, std::size_t>();
  DOVETAIL_REQUIRE(constants,
                   "what it says of itself is not `static constexpr bool observes`, `needs_loss`, `whole_tensors`, "
                   "`steps_together`, or `static constexpr std::size_t division_block`",
                   O);
  static constexpr bool unsaid = layers && !optimizer_members::observes_fits<O, bool>;
  DOVETAIL_REQUIRE(!unsaid,
                   "has observe, and does not say `static constexpr bool observes = true`: it would never be "
                   "called",
                   O);
  DOVETAIL_REQUIRE(!traits::needs_loss || traits::takes_options,
                   "says that it needs the loss, and its step does not take it: step(parameters, state, step_options "
                   "const&) const",
                   O);
  static constexpr bool checks = traits::checks_states || !optimizer_members::has_check_state<O>;
  DOVETAIL_REQUIRE(checks, "its check_state cannot be called as check_state(parameter_list const&, state const&) const",
                   O);
  static constexpr bool holds =
      (!traits::observes || layers) && constants && !unsaid && (!traits::needs_loss || traits::takes_options) && checks;
};

}  // namespace detail

/// One step, with the options if the optimizer takes some.
template <class O, class State>
step_result step_optimizer(O const& o, parameter_list const& p, State& s, step_options const& options) {
  static_assert(detail::must_be_an_optimizer<O>::holds);
  if constexpr (optimizer_traits<O>::takes_options)
    return o.step(p, s, options);
  else
    return o.step(p, s);
}
/// The same from a source of gradients. One that takes none reads the list's own.
template <class O, class State, class Source>
step_result step_optimizer(O const& o, parameter_list const& p, State& s, Source const& source,
                           step_options const& options) {
  if constexpr (optimizer_traits<O>::template takes_source<Source>) {
    return o.step(p, s, source, options);
  } else {
    DOVETAIL_REQUIRE((std::is_same_v<Source, gradient::dense>),
                     "reads the gradients of its parameter list only: to step it from this source it needs "
                     "step(parameters, state, source, step_options const&) const",
                     O, Source);
    return step_optimizer(o, p, s, options);
  }
}

}  // namespace dovetail::optim
