// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/settings.hpp>

// Optimizers by name. A rule that is in a registry is compiled, whether or not it is asked for: a program that needs a
// few names only registers those, and one that needs all puts the call of optim::rules() into a source file of its own.

namespace dovetail::optim {

/// Rules by name, with their hyperparameters by name. A value.
///
///     auto const known = optim::registry{}.add<optim::adamw>().add<my_rule>();
///     auto const opt = known.make("adamw", {{"lr", 1e-3}, {"weight_decay", 0.1}});
///
/// A rule of one's own is registered if it has DOVETAIL_OPTIMIZER and describe() (core/ranges.hpp).
class registry {
 public:
  /// Registers a rule under the name that it describes itself with. A rule of the same name is replaced.
  template <class Rule>
  registry& add() {
    DOVETAIL_REQUIRE(dovetail::detail::described<Rule>,
                     "has no describe(), which says its name and those of its hyperparameters (core/ranges.hpp)", Rule);
    rules_[dovetail::detail::policy_of<Rule>.name] = {[](settings const& given) -> any_optimizer {
                                                        Rule rule{};
                                                        detail::apply_settings(rule, given, "optim::make");
                                                        return rule;
                                                      },
                                                      [] { return detail::listed_settings(Rule{}); }};
    return *this;
  }
  /// Registers all that another one has.
  registry& add(registry const& other) {
    for (auto const& [name, r] : other.rules_) rules_[name] = r;
    return *this;
  }

  /// The rule of this name, its hyperparameters as given and otherwise as they are by default. Throws argument_error
  /// that lists the names there are, the rule's hyperparameters, or what a value must be.
  DOVETAIL_COLD any_optimizer make(std::string_view name, settings const& given = {}) const {
    auto const found = rules_.find(name);
    if (found == rules_.end())
      throw argument_error(message("optim::make: there is no optimizer '", name, '\'', detail::nearest(name, names()),
                                   ": there are ", rules_.empty() ? "none" : detail::comma_separated(names())));
    return found->second.make(given);
  }

  /// In alphabetical order.
  DOVETAIL_COLD std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (auto const& [name, r] : rules_) all.push_back(name);
    return all;
  }
  bool contains(std::string_view name) const { return rules_.contains(name); }
  /// A line for each rule: its name, and its hyperparameters with their defaults.
  DOVETAIL_COLD std::string list() const {
    std::size_t width = 0;
    for (auto const& [name, r] : rules_) width = std::max(width, name.size());
    std::string all;
    for (auto const& [name, r] : rules_)
      all += message(name, std::string(width - name.size() + 2, ' '), r.list(), '\n');
    return all;
  }

 private:
  struct entry {
    any_optimizer (*make)(settings const&);
    std::string (*list)();
  };
  std::map<std::string, entry, std::less<>> rules_;
};

namespace detail {
/// A number for each rule of the list.
enum class listed_rule {
#define DOVETAIL_RULE(family, name) name,
#include <dovetail/optim/rules/list.inc.hpp>
};
}  // namespace detail

/// How many parts the rules of optim/rules.hpp come in, for programs that need them all (add_rules).
inline constexpr int rule_parts = 4;

/// Registers one part of the rules of optim/rules.hpp. rules() calls it for all parts, and so compiles all of them in
/// one source file: a minute. A program may compile each part in a source file of its own, several at a time:
///
///     template void dovetail::optim::add_rules<0>(dovetail::optim::registry&);          // in rules_0.cpp
///     extern template void dovetail::optim::add_rules<0>(dovetail::optim::registry&);   // before rules() is called
template <int Part, class Later = void>
void add_rules(registry& r) {
#define DOVETAIL_RULE(family, name)                                               \
  if constexpr (static_cast<int>(detail::listed_rule::name) % rule_parts == Part) \
    r.add<detail::later<Later, optim::name>>();
#include <dovetail/optim/rules/list.inc.hpp>
}

/// All rules of optim/rules.hpp. To call it compiles all of them, in this source file, but for parts that are compiled
/// elsewhere (add_rules).
template <class Later = void>
DOVETAIL_COLD registry const& rules() {
  static registry const all = [] {
    registry r;
    [&r]<int... Part>(std::integer_sequence<int, Part...>) { (add_rules<Part, Later>(r), ...); }
    (std::make_integer_sequence<int, rule_parts>{});
    return r;
  }();
  return all;
}

/// The same as rules().make(name, given): `optim::make("adamw", {{"lr", 1e-3}, {"weight_decay", 0.1}})`.
template <class Later = void>
DOVETAIL_COLD any_optimizer make(std::string_view name, settings const& given = {}) {
  return rules<Later>().make(name, given);
}

}  // namespace dovetail::optim
