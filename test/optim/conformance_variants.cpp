// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The variants of the better known rules, those of online learning and those that need the loss: what they are in
// limiting cases, in groups, and with numbers that are far too large.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

#include "limits.hpp"
#include "training.hpp"

namespace optim_conformance_variants {

using namespace conformance;

TEST_CASE("limiting cases: variants are the rules that they vary") {
  auto const difference = [](std::vector<float> const& a, std::vector<float> const& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst;
  };
  auto const near = [&](auto const& a, auto const& b) { return difference(after(a), after(b)) < 1e-6; };
  // Epsilon is beside the root before or behind its correction: none.
  CHECK(near("padam lr=0.01 power=0.5 epsilon=1e-30", "amsgrad lr=0.01 epsilon=1e-30"));
  CHECK(!near("padam lr=0.01 epsilon=1e-30", "amsgrad lr=0.01 epsilon=1e-30"));
  // Bounds that hold nothing.
  CHECK(near("amsbound gamma=1e-9 epsilon=1e-30", "amsgrad epsilon=1e-30"));
  CHECK(!near("amsbound final_ratio=1 gamma=1 epsilon=1e-30", "amsgrad epsilon=1e-30"));
  CHECK(near("nadamax beta1=0", "adamax lr=1e-3 beta1=0"));
  CHECK(near("simplified_ademamix lr=0.01 beta1=0 beta2=0.999", "adam lr=0.01 beta1=0"));
  CHECK(after("optimistic_adam optimism=0") == after("adam"));
  CHECK(after("optimistic_sgd beta=0") == after("sgd"));
  CHECK(near("ftml lr=0.01 beta1=0", "adam lr=0.01 beta1=0"));
  CHECK(near("swats epsilon=1e-30", "adam epsilon=1e-30"));  // before its switch
  CHECK(near("demon momentum=0", "sgd"));
  CHECK(near("demon steps=1000000000", "momentum"));
  CHECK(!near("demon steps=20", "momentum"));
  CHECK(near("ftrl lr=0.05 beta=0.5", "adagrad lr=0.05 epsilon=0.5"));
  // A center that goes where every step has gone, and holds nothing, is not there.
  CHECK(near("entropy_sgd lr=0.01 steps=1 scope=0 alpha=1", "sgd lr=0.01"));
  CHECK(!near("entropy_sgd lr=0.01 steps=2 scope=0 alpha=0.5", "sgd lr=0.01"));
  // Far above the lower bound: always the largest rate.
  CHECK(near("polyak_sgd lower_bound=-1e9 largest=1e-3", "sgd lr=1e-3"));
  CHECK(!near("polyak_sgd largest=1e-3", "sgd lr=1e-3"));
  CHECK(near("momo_adam lr=1e-3 lower_bound=-1e9", "adam lr=1e-3"));
  CHECK(near("eve clipping=1", "adam"));
}

TEST_CASE("what a rule cannot work with is refused before anything is made") {
  arena a({{"w", {3}}});
  CHECK_THROWS_WITH_AS(optim::entropy_sgd{.steps = 0}.init(a.parameters()), doctest::Contains("steps is 0"),
                       argument_error);
  CHECK_THROWS_WITH_AS(optim::ftrl{.beta = 0}.init(a.parameters()), doctest::Contains("beta is 0"), argument_error);
  CHECK_THROWS_WITH_AS(optim::wngrad{.initial = 0}.init(a.parameters()), doctest::Contains("initial is 0"),
                       argument_error);
  CHECK_THROWS_WITH_AS((optim::chain{optim::sgd{}, optim::lookahead{.steps = 0}}.init(a.parameters())),
                       doctest::Contains("lookahead: steps is 0"), argument_error);
  CHECK_THROWS_WITH_AS((optim::chain{optim::sgd{}, optim::swa_weights{.every = 0}}.init(a.parameters())),
                       doctest::Contains("swa_weights: every is 0"), argument_error);
}

TEST_CASE("every group's hyperparameters are checked, and a loss before any rule of several has stepped") {
  arena a({{"w", {3}}, {"b", {3}}});
  optim::param_groups const param_groups{optim::entropy_sgd{},
                                         optim::group{optim::name_matches{"b"}, optim::entropy_sgd{.steps = 0}}};
  CHECK_THROWS_WITH_AS(param_groups.init(a.parameters()), doctest::Contains("steps is 0"), argument_error);
  CHECK_THROWS_AS(optim::cocob{.alpha = 0}.init(a.parameters()), argument_error);
  CHECK_THROWS_AS(optim::demon{.momentum = 1}.init(a.parameters()), argument_error);
  CHECK_THROWS_AS(optim::adahessian{.power = 0}.init(a.parameters()), argument_error);
  CHECK_THROWS_AS(optim::eve{.clipping = 0.5f}.init(a.parameters()), argument_error);

  fill(a.weights(), 1);
  fill(a.gradients(), 2);
  std::vector<float> const before(a.weights().begin(), a.weights().end());
  {  // a rule that was changed between two steps, behind one that would have stepped
    auto const made = [](float beta1) {
      return optim::partition{optim::adamw{}, optim::group{optim::name_matches{"b"}, optim::adamw{.beta1 = beta1}}};
    };
    auto state = made(0.9f).init(a.parameters());
    CHECK_THROWS_WITH_AS(made(1).step(a.parameters(), state), doctest::Contains("adamw: beta1 is 1"), argument_error);
    CHECK(same_bits(a.weights(), before));
    CHECK(state == made(0.9f).init(a.parameters()));
  }
  optim::partition const mixed{optim::adamw{}, optim::group{optim::name_matches{"b"}, optim::momo{}}};
  auto state = mixed.init(a.parameters());
  CHECK_THROWS_WITH_AS(mixed.step(a.parameters(), state), doctest::Contains("depend on the loss"), argument_error);
  CHECK(same_bits(a.weights(), before));
  mixed.step(a.parameters(), state, {.loss = 1});
  CHECK(!same_bits(a.weights(), before));
}

TEST_CASE("a NaN shows, and what is too large or too small for a float does not become one") {
  auto const after = [](auto const& rule, std::vector<float> const& gradients, float weight = 1) {
    arena a({{"w", {2}}});
    for (float& w : a.weights()) w = weight;
    auto state = rule.init(a.parameters());
    for (float const g : gradients) {
      a.gradients()[0] = g;
      a.gradients()[1] = 0.5f;
      rule.step(a.parameters(), state, {.loss = 1});
    }
    return a.weights()[0];
  };
  float const nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(after(optim::ftrl{.l1 = 0.1f}, {1, nan, 1})));
  CHECK(std::isnan(after(optim::cocob{}, {1, nan, 1})));
  CHECK(std::isnan(after(optim::padam{}, {1, nan, 1})));
  for (float const huge : {1e18f, 3e18f, 3e19f}) {
    CHECK(std::isfinite(after(optim::smorms3{}, {1, huge, 1})));
    CHECK(std::isfinite(after(optim::cocob{}, {1, huge, 1})));
    CHECK(after(optim::cocob{}, {huge, huge}) != 1.0f);
  }
  // Both elements vanish: the factor would be infinite.
  arena a({{"w", {2}}});
  auto const steps = [&](auto const& rule) {
    for (float& w : a.weights()) w = 100;
    for (float& g : a.gradients()) g = 1e-40f;
    auto state = rule.init(a.parameters());
    for (int t = 0; t < 3; ++t) rule.step(a.parameters(), state);
    CHECK(finite(a.weights()));
  };
  steps(optim::fromage{});
  steps(optim::percent_delta{});
  steps(optim::adagrad_norm{.initial = 0});
  steps(optim::lans{});
  steps(optim::dog{.epsilon = 0});
}

TEST_CASE("groups of rules that remember something of all tensors") {
  // Its own epsilon, which makes b's bets smaller.
  arena a({{"w", {1}}, {"b", {1}}});
  optim::param_groups const bets{optim::cocob{}, optim::group{optim::name_matches{"b"}, optim::cocob{.epsilon = 100}}};
  auto state = bets.init(a.parameters());
  for (int t = 0; t < 3; ++t) {
    a.gradients()[0] = a.gradients()[1] = 1;
    bets.step(a.parameters(), state);
  }
  CHECK(std::abs(a.weights()[1]) < 0.5f * std::abs(a.weights()[0]));

  // SGD's rate is one, but a group that rests stays at rest behind the switch.
  for (float& w : a.weights()) w = 1;
  optim::param_groups const switching{optim::swats{.lr = 0.01f, .tolerance = 10},
                                      optim::group{optim::name_matches{"b"}, optim::swats{.lr = 0, .tolerance = 10}}};
  auto by_swats = switching.init(a.parameters());
  for (int t = 0; t < 6; ++t) {
    a.gradients()[0] = a.weights()[0];
    a.gradients()[1] = a.weights()[1];
    switching.step(a.parameters(), by_swats);
  }
  CHECK(by_swats.scalar(1)[0] > 0);
  CHECK(a.weights()[1] == 1);
  CHECK(a.weights()[0] < 1);

  // What is remembered is what the rest's hyperparameters make of the sums, wherever its tensors are in the list.
  auto const remembered = [](std::vector<arena::tensor> const& order) {
    arena x(order);
    optim::param_groups const rule{optim::momo{}, optim::group{optim::name_matches{"b"}, optim::momo{.beta = 0}}};
    auto s = rule.init(x.parameters());
    for (double loss : {1.0, 2.0, 4.0}) {
      for (float& g : x.gradients()) g = 0.25f;
      rule.step(x.parameters(), s, {.loss = loss});
    }
    return s.scalar(0)[0];
  };
  CHECK(remembered({{"w", {1}}, {"b", {1}}}) == remembered({{"b", {1}}, {"w", {1}}}));
  CHECK(remembered({{"b", {1}}}) == doctest::Approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4));
}

TEST_CASE("Entropy-SGD holds its weights no more than it can: a long training stays where it is") {
  arena a({{"w", {1}}});
  optim::entropy_sgd const rule{.steps = 2, .scope = 0.1f, .scope_growth = 0.1f};
  auto state = rule.init(a.parameters());
  for (int t = 0; t < 4000; ++t) {
    a.gradients()[0] = a.weights()[0] - 1 + (t % 2 ? 0.1f : -0.1f);
    rule.step(a.parameters(), state);
    REQUIRE(std::abs(a.weights()[0]) < 2);
  }
}

TEST_CASE("weights that l1 has put to 0 are zeros, and come back when their gradients ask for it") {
  arena a({{"w", {2}}});
  optim::ftrl const rule{.lr = 0.5f, .l1 = 1};
  a.weights()[0] = 0.3f;
  auto state = rule.init(a.parameters());
  for (int t = 0; t < 40; ++t) {
    a.gradients()[0] = a.weights()[0];         // a pull to 0
    a.gradients()[1] = a.weights()[1] - 0.5f;  // a pull to 1/2, weaker than what a weight costs only at first
    rule.step(a.parameters(), state);
    if (t == 0) CHECK(a.weights()[1] == 0);
  }
  CHECK(a.weights()[0] == 0);
  CHECK(a.weights()[1] > 0.2f);
}

}  // namespace optim_conformance_variants
