// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// Parameters whose name matches a pattern; * stands for any characters, ? for one: name_matches{"*.bias"}.
struct name_matches {
  std::string pattern;  ///< of the whole name

  bool operator()(std::string_view name, shape const&) const { return matches(pattern, name); }

 private:
  static bool matches(std::string_view p, std::string_view s) {
    std::size_t i = 0, j = 0, star = p.npos, mark = 0;
    while (i < s.size()) {
      if (j < p.size() && (p[j] == '?' || p[j] == s[i]) && p[j] != '*')
        ++i, ++j;
      else if (j < p.size() && p[j] == '*')
        star = j++, mark = i;
      else if (star != p.npos)
        j = star + 1, i = ++mark;  // let the last * take one character more
      else
        return false;
    }
    return p.find_first_not_of('*', j) == p.npos;
  }
};

/// Parameters of fewer dimensions: rank_below{2} are biases and the scales and shifts of normalizations.
struct rank_below {
  int rank = 2;  ///< the least number of dimensions that is too many
  bool operator()(std::string_view, shape const& s) const { return s.rank < rank; }
};

namespace detail {
template <class Predicate>
consteval void check_predicate() {
  DOVETAIL_REQUIRE((std::is_invocable_r_v<bool, Predicate const&, std::string_view, shape const&>),
                   "the predicate of a group is called as bool(std::string_view name, shape const&) const", Predicate);
}
}  // namespace detail

/// The parameters for which `predicate(name, shape)` holds, and their hyperparameters.
template <class Predicate, class Rule>
struct group {
  Predicate predicate;
  Rule rule;
};

/// One rule with several values of hyperparameters. A parameter belongs to the first group whose predicate holds, to
/// `rest` if there is none; this is decided once, by init. Global norms span all groups. No decay on biases:
///
///     optim::param_groups{optim::adamw{},
///                         optim::group{optim::name_matches{"*.bias"}, optim::adamw{.weight_decay = 0}}}
template <class Rule, class... Groups>
class param_groups {
  static constexpr std::size_t count = 1 + sizeof...(Groups);
  template <class Predicate, class Other>
  static constexpr bool same_rule(group<Predicate, Other> const*) {
    DOVETAIL_REQUIRE(
        (std::same_as<Rule, Other>),
        "the groups of param_groups have one rule and differ in its hyperparameters: for several rules use "
        "optim::partition",
        Other, Rule);
    detail::check_predicate<Predicate>();
    return true;
  }
  static_assert((same_rule(static_cast<Groups const*>(nullptr)) && ...));

 public:
  using state_type = state;
  static constexpr optim::plan plan = Rule::plan;
  static constexpr int passes = Rule::passes;
  static constexpr std::size_t bytes_per_parameter = Rule::bytes_per_parameter;
  template <class Source>
  static constexpr double bytes_per_parameter_with(Source const& source = {}) {
    return Rule::bytes_per_parameter_with(source);
  }

  param_groups(Rule rest, Groups... groups) : rest_(std::move(rest)), groups_(std::move(groups)...) {}

  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    return init(parameters, groups_of(parameters));
  }
  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters, std::vector<std::uint32_t> group_of) const {
    check();
    auto const all = chains();
    return all[0].init_groups(all, parameters, std::move(group_of));
  }
  /// See chain::check_state.
  template <class T>
  void check_state(basic_parameter_list<T> const& parameters, basic_state<T> const& s) const {
    auto const all = chains();
    all[0].check_state(all, parameters, s);
  }
  /// See chain::check_next_step.
  template <class T>
  void check_next_step(basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                       step_context const& context) const {
    auto const all = chains();
    all[0].check_next_step(all, parameters, s, context);
  }
  /// group_index of every parameter.
  template <class T, class Space>
  std::vector<std::uint32_t> groups_of(basic_parameter_list<T, Space> const& parameters) const {
    std::vector<std::uint32_t> group_of;
    for (auto const& p : parameters) group_of.push_back(group_index(p.name, p.logical_whole()));
    return group_of;
  }
  template <class T>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s,
                   step_context const& context = {}) const {
    return step(parameters, s, gradient::dense{}, context);
  }
  template <class T, detail::source_argument Source>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s, Source const& source,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    return step_stored(parameters, s, source, context, detail::plain_store{});
  }
  /// The same with slots or weights in another format: what optim::low_precision_state calls.
  template <class T, gradient_source Source, class Store>
  step_result step_stored(basic_parameter_list<T> const& parameters, basic_state<T>& s, Source const& source,
                          step_context const& context, Store const& store) const {
    check();
    auto const all = chains();
    return all[0].step_groups(all, parameters, s, source, context, store);
  }

  /// Throws argument_error for hyperparameters that the rule cannot work with, of any group.
  void check() const {
    detail::check_rule(rest_);
    std::apply([](auto const&... g) { (detail::check_rule(g.rule), ...); }, groups_);
  }
  /// The rule as a chain: of the rest, then of every group.
  auto chains() const {
    return std::apply(
        [&](auto const&... g) {
          return std::array{detail::as_chain(rest_), detail::as_chain(g.rule)...};
        },
        groups_);
  }

  static constexpr rule_needs needs = optimizer_traits<Rule>::needs;
  template <class T>
  void observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_kfac_statistics<T> const& f) const {
    detail::as_chain(rest_).observe(parameters, s, f);
  }
  template <class T>
  std::vector<std::span<T>> unreduced_statistics(basic_parameter_list<T> const& parameters, basic_state<T>& s) const {
    return detail::as_chain(rest_).unreduced_statistics(parameters, s);
  }
  /// What a tensor's curvature becomes, its own group says.
  template <class T>
  bool observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_hessian_diagonal<T> const& d) const {
    return observe_stored(parameters, s, d, detail::plain_store{});
  }
  template <class T, class Store>
  bool observe_stored(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_hessian_diagonal<T> const& d,
                      Store const& store) const {
    auto const all = chains();
    return all[0].observe_groups(all, parameters, s, d, store);
  }

  DOVETAIL_OTHER_MEMORY

  /// 0 for the rest, i for the i-th group (from 1).
  std::uint32_t group_index(std::string_view name, shape const& s) const {
    std::uint32_t index = 0, i = 0;
    std::apply([&](auto const&... g) { ((++i, !index && g.predicate(name, s) ? void(index = i) : void()), ...); },
               groups_);
    return index;
  }

 private:
  Rule rest_;
  std::tuple<Groups...> groups_;
};

}  // namespace dovetail::optim
