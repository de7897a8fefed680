// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizers that are chosen when the program runs.
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/sync/shard.hpp>

#include "any_optimizer.hpp"
#include "rules/by_name.hpp"
#include "rules/rule_of.hpp"

namespace optim_any_optimizer {

using namespace dovetail;

namespace {

/// A rule of one's own, registered like the library's.
struct my_sgd {
  optim::schedule lr = 0.5f;
  bool forward = true;
  int repeats = 1;
  static constexpr auto describe() {
    return policy{"my_sgd", field{"lr", &my_sgd::lr}, field{"forward", &my_sgd::forward},
                  field{"repeats", &my_sgd::repeats, ranges::count}};
  }
  using rule = optim::chain<optim::scale, optim::scale_by_learning_rate>;
  rule stages() const {
    return {optim::scale{static_cast<float>(forward ? repeats : -repeats)}, optim::scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};
static_assert(my_sgd::passes == 1 && my_sgd::bytes_per_parameter == 12);

std::string refusal(std::string const& name, optim::settings const& given = {}) {
  try {
    optim::make(name, given);
  } catch (argument_error const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("a rule by name takes the steps of the rule by type, saved and loaded") {
  CHECK(optim::rules().names().size() == known::all().size());
  for (auto const& r : known::all()) by_name::check_steps(optim::rules(), *r);
}
TEST_CASE("every hyperparameter can be set by name") {
  for (auto const& r : known::all()) by_name::check_fields(optim::rules(), *r);
  auto const list = optim::rules().list();
  CHECK(list.find('?') == list.npos);
  CHECK(list.find("adamw ") != list.npos);
  CHECK(list.find("lr=0.001 beta1=0.9 beta2=0.999 epsilon=1e-08 weight_decay=0.01\n") != list.npos);
}
TEST_CASE("wrong names and values say what there is") {
  auto const unknown = refusal("adamx");
  CHECK(unknown.starts_with("optim::make: there is no optimizer 'adamx' (did you mean 'adam"));
  CHECK(unknown.find("acprop, adabelief, adabound") != unknown.npos);
  CHECK(unknown.find("yogi") != unknown.npos);
  CHECK(refusal("something_else").find("did you mean") == std::string::npos);
  CHECK(refusal("adamw", {{"wieght_decay", 0.1}}) ==
        "optim::make: adamw has no hyperparameter 'wieght_decay' (did you mean 'weight_decay'?): it has lr, beta1, "
        "beta2, epsilon, weight_decay");
  CHECK(refusal("adamw", {{"beta1", 1}}) == "adamw: beta1 is 1: it must be at least 0 and below 1");
  CHECK(refusal("adamw", {{"beta1", 1e300}}) == "adamw: beta1 is 1e+300: it must be at least 0 and below 1");
  CHECK(refusal("adamw", {{"epsilon", 1e300}}) ==
        "optim::make: adamw: epsilon cannot be set to 1e+300: it is a number in single precision");
  CHECK(refusal("adamw", {{"lr", -1}}) == "adamw: lr is -1: it must be at least 0");
  CHECK(refusal("adamw", {{"lr", 1e300}}).starts_with("adamw: lr is 1e+300: it must be at least 0 and at most 3.4"));
  CHECK(refusal("adamw", {{"beta1", true}}) == "optim::make: adamw: beta1 cannot be set to true: it is a number");
  CHECK(refusal("adamw", {{"beta1", optim::cosine{}}}) ==
        "optim::make: adamw: beta1 cannot be set to a schedule: it is a number");
  CHECK(refusal("adamw", {{"lr", "fast"}}) ==
        "optim::make: adamw: lr cannot be set to 'fast': it is a number or a schedule");
  CHECK(refusal("adamw", {{"lr", 1}, {"lr", 2}}) ==
        "optim::make: adamw: lr is given twice, as 1 and as 2: give it once");
  CHECK(refusal("adamw", {{"", 1}}).starts_with("optim::make: adamw has no hyperparameter ''"));
  CHECK(refusal("prodigy", {{"bias_correction", "maybe"}}) ==
        "optim::make: prodigy: bias_correction cannot be set to 'maybe': it is true or false");
  CHECK(refusal("adahessian", {{"average", "column"}}) ==
        "optim::make: adahessian: average cannot be set to 'column': it is the name of one of these: none, kernel, "
        "row");
  CHECK(refusal("adamw") == "nothing was thrown");
  CHECK_THROWS_WITH_AS(optim::registry{}.make("adamw"), doctest::Contains("there are none"), argument_error);

  CHECK(optim::parse_setting("lr=1e-3").name == "lr");
  CHECK(*optim::parse_setting("lr=a=b").value.text() == "a=b");
  CHECK_THROWS_WITH_AS(optim::parse_setting("lr"), doctest::Contains("key=value"), argument_error);
  CHECK_THROWS_AS(optim::parse_setting("=1"), argument_error);
}
TEST_CASE("a registry is a value, and takes rules of one's own") {
  auto own = optim::registry{}.add<optim::adamw>();
  auto copy = own;
  copy.add<my_sgd>();
  CHECK(own.names() == std::vector<std::string>{"adamw"});
  CHECK(copy.names() == std::vector<std::string>{"adamw", "my_sgd"});
  own.add(copy);
  CHECK(own.contains("my_sgd"));
  known::rule_of<my_sgd> const mine("own");
  by_name::check_steps(own, mine);
  by_name::check_fields(own, mine);
  CHECK(own.list() ==
        "adamw   lr=0.001 beta1=0.9 beta2=0.999 epsilon=1e-08 weight_decay=0.01\n"
        "my_sgd  lr=0.5 forward=true repeats=1\n");
  CHECK_THROWS_WITH_AS(own.make("my_sgd", {{"repeats", 0x1p31}}), doctest::Contains("whole number"), argument_error);
}
TEST_CASE("any chain becomes an optimizer of one type, and copies are values") {
  optim::chain const clipped{optim::clip_by_global_norm{0.1f}, optim::adamw{}};
  std::vector<optim::any_optimizer> all{optim::sgd{}, clipped};
  CHECK(all[1].name() == "chain of clip_by_global_norm, scale_by_adam, add_decayed_weights, scale_by_learning_rate");
  CHECK(all[1].hyperparameters() == hyperparameters_of(clipped));
  conformance::training typed(clipped);
  auto copy = all[0];
  copy = all[1];
  all[1] = all[0];
  auto moved = std::move(copy);
  conformance::training named(moved), left(copy);
  typed.run(1, 3);
  named.run(1, 3);
  left.run(1, 3);  // what was moved from is as it was
  CHECK(conformance::same_bits(named.a.weights(), typed.a.weights()));
  CHECK(conformance::same_bits(left.a.weights(), typed.a.weights()));

  // A state that does not fit is refused as by the rule itself.
  CHECK_THROWS_WITH_AS(all[0].step(named.a.parameters(), named.state), doctest::Contains("slots"), argument_error);
  CHECK_THROWS_AS(all[0].check_state(named.a.parameters(), named.state), argument_error);
}
TEST_CASE("synchronizers give the same bits, and ask for what the rule at hand needs") {
  auto const train = [](auto const& sync, auto const& rule, auto const& comm_size) {
    std::vector<float> weights;
    comm::threads(comm_size).run([&](auto& c) {
      arena a(conformance::tensors());
      conformance::fill(a.weights(), 1);
      auto session = sync.join(a.parameters(), rule, c);
      for (std::uint32_t t = 1; t <= 5; ++t) {
        session.begin();
        CHECK(!session.observer());  // these rules have nothing to learn from layers
        conformance::fill(a.gradients(), 100 * t + static_cast<std::uint32_t>(c.rank()));
        session.ready(0);
        session.step({.loss = 0.5 / t});
      }
      if (c.rank() == 0) weights.assign(a.weights().begin(), a.weights().end());
    });
    return weights;
  };
  auto const same = [&](auto const& sync, auto const& rule) {
    CHECK(conformance::same_bits(train(sync, rule, 3), train(sync, optim::any_optimizer(rule), 3)));
  };
  same(sync::all_reduce{}, optim::adamw{});
  same(sync::all_reduce{.check_equal = true}, optim::polyak_sgd{});
  same(sync::all_reduce{}, optim::lamb{});
  same(sync::local_sgd{.every = 2}, optim::momentum{});

  // Gradients alone are enough for a rule that does not need the loss.
  comm::threads(2).run([&](auto& c) {
    arena a(conformance::tensors());
    auto session = sync::all_reduce{}.join(a.parameters(), optim::any_optimizer(optim::adamw{}), c);
    session.begin();
    CHECK(session.step().step == 1);
    auto needy = sync::all_reduce{}.join(a.parameters(), optim::any_optimizer(optim::polyak_sgd{}), c);
    needy.begin();
    CHECK_THROWS_WITH_AS(needy.step(), doctest::Contains("the optimizer needs the loss"), argument_error);
  });
  // Ranks that chose different rules or values.
  comm::threads(2).run([&](auto& c) {
    arena a(conformance::tensors());
    auto const mine = optim::make("adamw", {{"weight_decay", c.rank() ? 0.1 : 0.2}});
    CHECK_THROWS_WITH_AS((sync::all_reduce{.check_equal = true}.join(a.parameters(), mine, c)),
                         doctest::Contains("adamw.weight_decay"), argument_error);
  });
}
TEST_CASE("the rate of one that holds groups is that of the rest") {
  optim::any_optimizer const groups =
      optim::param_groups{optim::sgd{.lr = 0.25f}, optim::group{optim::name_matches{"*.bias"}, optim::sgd{}}};
  CHECK(groups.learning_rate(1) == 0.25f);
}

TEST_CASE("divided among ranks, and in a partition") {
  auto const divided = [](auto const& rule) {
    std::vector<float> weights;
    comm::threads(3).run([&](auto& c) {
      arena a(conformance::tensors());
      conformance::fill(a.weights(), 1);
      auto const opt = sync::shard(rule, c);
      auto state = opt.init(a.parameters());
      for (std::uint32_t t = 1; t <= 4; ++t) {
        conformance::fill(a.gradients(), 100 + t);
        opt.step(a.parameters(), state, optim::gradient::scaled{0.5f});
      }
      CHECK(opt.gathered(a.parameters(), state).steps() == 4);
      if (c.rank() == 0) weights.assign(a.weights().begin(), a.weights().end());
    });
    return weights;
  };
  CHECK(conformance::same_bits(divided(optim::adamw{}), divided(optim::any_optimizer(optim::adamw{}))));
  CHECK(conformance::same_bits(divided(optim::lamb{}), divided(optim::any_optimizer(optim::lamb{}))));

  auto const parted = [](auto const& rule) {
    optim::partition const p{rule, optim::group{optim::name_matches{"*.bias"}, optim::sgd{}}};
    arena a(conformance::tensors());
    conformance::fill(a.weights(), 1);
    auto state = p.init(a.parameters());
    for (std::uint32_t t = 1; t <= 4; ++t) {
      conformance::fill(a.gradients(), 100 + t);
      p.step(a.parameters(), state);
    }
    return std::vector<float>(a.weights().begin(), a.weights().end());
  };
  CHECK(conformance::same_bits(parted(optim::adamw{}), parted(optim::any_optimizer(optim::adamw{}))));
}

}  // namespace optim_any_optimizer
