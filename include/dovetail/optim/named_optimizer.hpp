// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <ostream>

#include <dovetail/optim/chain.hpp>

// What makes an optimizer with a name of an aggregate of hyperparameters that stands for a chain. No base class: it
// would make designated initializers warn.

namespace dovetail::optim::detail {
// The constants of a named optimizer. Their values are those of its chain, which a program works out only for the
// optimizers that it uses: there are too many of them to trace each in every translation unit.
template <class Rule>
struct passes_of {
  constexpr operator int() const { return Rule::passes; }
};
template <class Rule>
struct bytes_of {
  constexpr operator std::size_t() const { return Rule::bytes_per_parameter; }
};
template <class Rule>
struct observes_of {
  constexpr operator bool() const { return Rule::observes; }
};
template <class Rule>
struct needs_loss_of {
  constexpr operator bool() const { return Rule::needs_loss; }
};
template <class Rule>
struct whole_tensors_of {
  constexpr operator bool() const { return Rule::whole_tensors; }
};
template <class Rule>
struct plan_of {
  constexpr operator optim::plan const&() const { return Rule::plan; }
  constexpr optim::plan const* operator->() const { return &Rule::plan; }
  friend std::ostream& operator<<(std::ostream& out, plan_of const&) { return out << Rule::plan; }
};
}  // namespace dovetail::optim::detail

/// Makes an optimizer of an aggregate that has a type `rule` (a chain) and `rule stages() const`. All members are
/// templates, so that a program compiles the rules that it uses.
#define DOVETAIL_OPTIMIZER                                                                                       \
  using state_type = ::dovetail::optim::state;                                                                   \
  static constexpr ::dovetail::optim::detail::plan_of<rule> plan{};                                              \
  static constexpr ::dovetail::optim::detail::passes_of<rule> passes{};                                          \
  static constexpr ::dovetail::optim::detail::bytes_of<rule> bytes_per_parameter{};                              \
  template <class Source>                                                                                        \
  static constexpr double bytes_per_parameter_with(Source const& source = {}) {                                  \
    return rule::bytes_per_parameter_with(source);                                                               \
  }                                                                                                              \
  static constexpr ::dovetail::optim::detail::whole_tensors_of<rule> whole_tensors{};                            \
  static constexpr ::dovetail::optim::detail::observes_of<rule> observes{};                                      \
  static constexpr ::dovetail::optim::detail::needs_loss_of<rule> needs_loss{};                                  \
  template <std::same_as<::dovetail::kfac_statistics> Factors>                                                   \
  void observe(::dovetail::parameter_list const& parameters, state_type& state, Factors const& factors) const {  \
    stages().observe(parameters, state, factors);                                                                \
  }                                                                                                              \
  template <std::derived_from<::dovetail::parameter_list> List>                                                  \
  auto unreduced_statistics(List const& parameters, state_type& state) const {                                   \
    return stages().unreduced_statistics(parameters, state);                                                     \
  }                                                                                                              \
  template <std::derived_from<::dovetail::parameter_list> List>                                                  \
  void forget_observed(List const& parameters, state_type& state) const {                                        \
    stages().forget_observed(parameters, state);                                                                 \
  }                                                                                                              \
  template <std::derived_from<::dovetail::parameter_list> List>                                                  \
  state_type init(List const& parameters) const {                                                                \
    ::dovetail::optim::detail::check_hyperparameters(*this);                                                     \
    return stages().init(parameters);                                                                            \
  }                                                                                                              \
  template <std::derived_from<::dovetail::parameter_list> List>                                                  \
  void check_state(List const& parameters, state_type const& state) const {                                      \
    stages().check_state(parameters, state);                                                                     \
  }                                                                                                              \
  template <std::same_as<::dovetail::optim::step_options> Options = ::dovetail::optim::step_options>             \
  ::dovetail::optim::step_result step(::dovetail::parameter_list const& parameters, state_type& state,           \
                                      Options const& options = {}) const {                                       \
    ::dovetail::optim::detail::check_hyperparameters(*this);                                                     \
    return stages().step(parameters, state, options);                                                            \
  }                                                                                                              \
  template <::dovetail::optim::detail::source_argument Source>                                                   \
  ::dovetail::optim::step_result step(::dovetail::parameter_list const& parameters, state_type& state,           \
                                      Source const& source, ::dovetail::optim::step_options const& options = {}) \
      const {                                                                                                    \
    static_assert(::dovetail::optim::detail::must_be_a_source<Source>::holds);                                   \
    ::dovetail::optim::detail::check_hyperparameters(*this);                                                     \
    return stages().step(parameters, state, source, options);                                                    \
  }
