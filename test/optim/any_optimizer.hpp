// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What a rule that is chosen by name must do: the same as the rule that is chosen by type.
#include <cstring>
#include <string>
#include <vector>

#include <dovetail/optim/rules/registry.hpp>

#include <doctest/doctest.h>

#include "conformance.hpp"

namespace by_name {

using namespace dovetail;
using conformance::same_bits;
using conformance::training;

/// Whatever a state holds, copied to another by its names.
inline void save_and_load(optim::state& from, optim::state& to) {
  auto const saved = from.tensors(""), loaded = to.tensors("");
  REQUIRE(saved.size() == loaded.size());
  for (std::size_t i = 0; i < saved.size(); ++i) {
    REQUIRE(saved[i].name == loaded[i].name);
    REQUIRE(saved[i].bytes.size() == loaded[i].bytes.size());
    if (!saved[i].bytes.empty()) std::memcpy(loaded[i].bytes.data(), saved[i].bytes.data(), saved[i].bytes.size());
  }
}

/// A number in the field's range that is not its default.
template <class Rule>
double another(field<Rule> const& f, Rule const& rule) {
  double const now = f.value(rule);
  if (f.whole()) return now + 1;
  for (double const x : {now * 0.5, now * 0.5 + 0.01, now + 0.25})
    if (f.range().holds(x) && static_cast<double>(static_cast<float>(x)) != now) return x;
  return now;
}

/// 20 steps by name are those by type, to the bit, with other hyperparameters than the defaults; the state of one goes
/// on in the other.
template <class Rule>
void check_steps(optim::registry const& known, std::string const& name) {
  CAPTURE(name);
  Rule rule{};
  optim::settings given;
  if constexpr (requires { rule.weight_decay; }) {
    rule.weight_decay = 0.02f;
    given.push_back({"weight_decay", 0.02});
  }
  if constexpr (requires { rule.lr = optim::cosine{}; }) {
    optim::cosine const rate{.initial = 3e-3f, .steps = 25};
    rule.lr = rate;
    given.push_back({"lr", rate});
  }
  auto const any = known.make(name, given);
  CHECK(any.name() == name);
  CHECK(any.hyperparameters() == hyperparameters_of(rule));
  CHECK(any.learning_rate(3) == rule.stages().learning_rate(3));
  CHECK(any.chosen_needs() == optim::needs_of(rule));

  training<Rule> typed(rule);
  training<optim::any_optimizer> named(any);
  CHECK(named.state == typed.state);
  typed.run(1, 20);
  named.run(1, 10);
  training<optim::any_optimizer> loaded(any);
  std::copy(named.a.weights().begin(), named.a.weights().end(), loaded.a.weights().begin());
  save_and_load(named.state, loaded.state);
  loaded.rule.check_state(loaded.a.parameters(), loaded.state);
  loaded.run(11, 20);
  CHECK(same_bits(loaded.a.weights(), typed.a.weights()));
  CHECK(loaded.state == typed.state);

  // Scaled gradients, through the step that is said to be the same.
  auto const s = optim::gradient::scaled{0.5f};
  conformance::fill(typed.a.gradients(), 7);
  conformance::fill(loaded.a.gradients(), 7);
  conformance::show_layers(rule, typed.a.parameters(), typed.state, 21);
  conformance::show_layers(any, loaded.a.parameters(), loaded.state, 21);
  rule.step(typed.a.parameters(), typed.state, s, conformance::with_loss(21));
  any.step(loaded.a.parameters(), loaded.state, s, conformance::with_loss(21));
  CHECK(same_bits(loaded.a.weights(), typed.a.weights()));
}

/// Every field can be set by its name, and is then what it is when it is set by type.
template <class Rule>
void check_fields(optim::registry const& known, std::string const& name) {
  CAPTURE(name);
  for (auto const& f : Rule::describe()) {
    std::string const field = f.name();
    CAPTURE(field);
    Rule rule{};
    auto const set = [&](optim::setting_value const& v) { return known.make(name, {{field, v}}).hyperparameters(); };
    if (f.is_flag()) {
      bool const other = f.value(rule) < 1;
      f.set(rule, other ? 1 : 0);
      CHECK(set(other) == hyperparameters_of(rule));
      CHECK(set(other ? "true" : "false") == hyperparameters_of(rule));
      CHECK_THROWS_WITH_AS(set(2), doctest::Contains("true or false"), argument_error);
    } else if (f.has_range()) {
      double const x = another(f, rule);
      CHECK(x != f.value(rule));
      f.set(rule, x);
      CHECK(set(x) == hyperparameters_of(rule));
      CHECK(set(dovetail::detail::number_text(x)) == hyperparameters_of(rule));
      CHECK_THROWS_WITH_AS(set("many"), doctest::Contains((field + " cannot be set to 'many'").c_str()),
                           argument_error);
      for (double const bad : outside::of(f))
        CHECK_THROWS_WITH_AS(set(bad), doctest::Contains((field + " is ").c_str()), argument_error);
      if (f.whole()) CHECK_THROWS_WITH_AS(set(2.5), doctest::Contains("whole number"), argument_error);
    } else if (f.choices()) {
      long const last = 2;
      f.choose(rule, last);
      CHECK(set(std::string(dovetail::detail::word_of(f.choices(), last))) == hyperparameters_of(rule));
      CHECK_THROWS_WITH_AS(set(1), doctest::Contains(message("one of these: none").c_str()), argument_error);
    } else {
      auto* const rate = f.template as<optim::schedule>(rule);
      REQUIRE(rate);  // otherwise there is a field that nobody can set
      *rate = 0.0625f;
      CHECK(set(0.0625) == hyperparameters_of(rule));
      CHECK(set("0.0625") == hyperparameters_of(rule));
    }
  }
}

}  // namespace by_name
