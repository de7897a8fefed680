// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What a rule that is chosen by name must do: the same as the rule that is chosen by type.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <dovetail/optim/rules/registry.hpp>

#include <doctest/doctest.h>

#include "ranges.hpp"
#include "rules/known.hpp"
#include "training.hpp"

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

/// 20 steps by name are those by type, to the bit, with other hyperparameters than the defaults; the state of one goes
/// on in the other.
inline void check_steps(optim::registry const& registry, known::rule const& r) {
  CAPTURE(r.name);
  known::recipe recipe;
  optim::settings given;
  if (r.field("weight_decay")) {
    recipe.unchecked.push_back({"weight_decay", 0.02f});
    given.push_back({"weight_decay", 0.02});
  }
  if (r.has_schedule()) {
    optim::cosine const rate{.initial = 3e-3f, .steps = 25};
    recipe.unchecked.push_back({"lr", rate});
    given.push_back({"lr", rate});
  }
  auto const any = registry.make(r.name, given);
  auto const rule = r.typed(recipe);
  CHECK(any.name() == r.name);
  CHECK(any.hyperparameters() == r.hyperparameters(recipe));
  CHECK(any.learning_rate(3) == r.learning_rate(recipe, 3));
  CHECK(any.chosen_needs() == r.needs);

  training typed(rule);
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
  r.step_scaled(recipe, typed.a.parameters(), typed.state, s, conformance::with_loss(21));
  any.step(loaded.a.parameters(), loaded.state, s, conformance::with_loss(21));
  CHECK(same_bits(loaded.a.weights(), typed.a.weights()));
}

/// Every field can be set by its name, and is then what it is when it is set by type.
inline void check_fields(optim::registry const& registry, known::rule const& r) {
  CAPTURE(r.name);
  for (auto const& f : r.fields) {
    std::string const field = f.says.name();
    CAPTURE(field);
    auto const set = [&](optim::setting_value const& v) {
      return registry.make(r.name, {{field, v}}).hyperparameters();
    };
    auto const by_type = [&](double x) { return r.hyperparameters({{}, {{field, x}}}); };
    if (f.says.is_flag()) {
      bool const other = f.value < 1;
      CHECK(set(other) == by_type(other ? 1 : 0));
      CHECK(set(other ? "true" : "false") == by_type(other ? 1 : 0));
      CHECK_THROWS_WITH_AS(set(2), doctest::Contains("true or false"), argument_error);
    } else if (f.says.has_range()) {
      double const x = f.another();
      CHECK(x != f.value);
      CHECK(set(x) == by_type(x));
      CHECK(set(dovetail::detail::number_text(x)) == by_type(x));
      CHECK_THROWS_WITH_AS(set("many"), doctest::Contains((field + " cannot be set to 'many'").c_str()),
                           argument_error);
      for (double const bad : outside::of(f.says))
        CHECK_THROWS_WITH_AS(set(bad), doctest::Contains((field + " is ").c_str()), argument_error);
      if (f.says.whole()) CHECK_THROWS_WITH_AS(set(2.5), doctest::Contains("whole number"), argument_error);
    } else if (f.says.choices()) {
      CHECK(set(std::string(dovetail::detail::word_of(f.says.choices(), 2))) == by_type(2));
      CHECK_THROWS_WITH_AS(set(1), doctest::Contains("one of these: none"), argument_error);
    } else {
      REQUIRE(f.is_rate);  // otherwise there is a field that nobody can set
      CHECK(set(0.0625) == by_type(0.0625));
      CHECK(set("0.0625") == by_type(0.0625));
    }
  }
}

}  // namespace by_name
