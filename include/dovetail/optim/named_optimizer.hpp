// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <iosfwd>
#include <span>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/step.hpp>

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
struct needs_of_rule {
  constexpr operator rule_needs() const { return Rule::needs; }
};
template <class Rule>
struct plan_of {
  constexpr operator optim::plan const&() const { return Rule::plan; }
  constexpr optim::plan const* operator->() const { return &Rule::plan; }
  template <class Traits>
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, plan_of const&) {
    return out << Rule::plan;
  }
};
template <class, class T>
struct later_type {
  using type = T;
};
/// T, but not looked at before Later is known: what a template says of it is compiled only if the template is used.
template <class Later, class T>
using later = typename later_type<Later, T>::type;

/// The chain of a named optimizer, looked at when Later is known.
template <class Later, class Named>
constexpr auto stages_later(Named const& rule) {
  return rule.stages();
}
/// The same of hyperparameters that are checked.
template <class Later, class Named>
constexpr auto checked_stages(Named const& rule) {
  check_hyperparameters(rule);
  return rule.stages();
}
}  // namespace dovetail::optim::detail

/// Makes an optimizer of an aggregate that has a type `rule` (a chain) and `rule stages() const`. All members are
/// templates in which the chain is looked at late, so that a program compiles the rules that it uses. A header of many
/// rules says `template <class Rule = rule> Rule stages() const` for the same reason.
#define DOVETAIL_OPTIMIZER                                                                                            \
  using state_type = ::dovetail::optim::state;                                                                        \
  static constexpr ::dovetail::optim::detail::plan_of<rule> plan{};                                                   \
  static constexpr ::dovetail::optim::detail::passes_of<rule> passes{};                                               \
  static constexpr ::dovetail::optim::detail::bytes_of<rule> bytes_per_parameter{};                                   \
  template <class Source>                                                                                             \
  static constexpr double bytes_per_parameter_with(Source const& source = {}) {                                       \
    return ::dovetail::optim::detail::later<Source, rule>::bytes_per_parameter_with(source);                          \
  }                                                                                                                   \
  static constexpr ::dovetail::optim::detail::needs_of_rule<rule> needs{};                                            \
  template <class T>                                                                                                  \
  void observe(::dovetail::basic_parameter_list<T> const& parameters, ::dovetail::optim::basic_state<T>& s,           \
               ::dovetail::basic_kfac_statistics<T> const& layer) const {                                             \
    ::dovetail::optim::detail::stages_later<T>(*this).observe(parameters, s, layer);                                  \
  }                                                                                                                   \
  template <class T>                                                                                                  \
  bool observe(::dovetail::basic_parameter_list<T> const& parameters, ::dovetail::optim::basic_state<T>& s,           \
               ::dovetail::optim::basic_hessian_diagonal<T> const& diagonal) const {                                  \
    return ::dovetail::optim::detail::stages_later<T>(*this).observe(parameters, s, diagonal);                        \
  }                                                                                                                   \
  template <class T>                                                                                                  \
  std::vector<std::span<T>> unreduced_statistics(::dovetail::basic_parameter_list<T> const& parameters,               \
                                                 ::dovetail::optim::basic_state<T>& s) const {                        \
    return ::dovetail::optim::detail::stages_later<T>(*this).unreduced_statistics(parameters, s);                     \
  }                                                                                                                   \
  template <class T>                                                                                                  \
  DOVETAIL_COLD ::dovetail::optim::basic_state<T> init(::dovetail::basic_parameter_list<T> const& parameters) const { \
    return ::dovetail::optim::detail::checked_stages<T>(*this).init(parameters);                                      \
  }                                                                                                                   \
  template <class T>                                                                                                  \
  void check_state(::dovetail::basic_parameter_list<T> const& parameters, ::dovetail::optim::basic_state<T> const& s) \
      const {                                                                                                         \
    ::dovetail::optim::detail::stages_later<T>(*this).check_state(parameters, s);                                     \
  }                                                                                                                   \
  template <class T>                                                                                                  \
  ::dovetail::optim::step_result step(::dovetail::basic_parameter_list<T> const& parameters,                          \
                                      ::dovetail::optim::basic_state<T>& s,                                           \
                                      ::dovetail::optim::step_context const& context = {}) const {                    \
    return ::dovetail::optim::detail::checked_stages<T>(*this).step(parameters, s, context);                          \
  }                                                                                                                   \
  template <class T, ::dovetail::optim::detail::source_argument Source>                                               \
  ::dovetail::optim::step_result step(::dovetail::basic_parameter_list<T> const& parameters,                          \
                                      ::dovetail::optim::basic_state<T>& s, Source const& source,                     \
                                      ::dovetail::optim::step_context const& context = {}) const {                    \
    static_assert(::dovetail::optim::detail::must_be_a_source<Source>::holds);                                        \
    return ::dovetail::optim::detail::checked_stages<Source>(*this).step(parameters, s, source, context);             \
  }                                                                                                                   \
  DOVETAIL_OTHER_MEMORY
