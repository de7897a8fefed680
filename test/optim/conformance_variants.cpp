// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The variants of the better known rules, those of online learning and those that need the loss, in the conformance
// suite, and what they are in limiting cases.
#include "conformance.hpp"

using namespace conformance;

TEST_CASE("limiting cases: variants are the rules that they vary") {
  auto const after = [](auto rule, int steps = 8) {
    training t(rule);
    t.run(1, steps);
    return std::vector<float>(t.a.weights().begin(), t.a.weights().end());
  };
  auto const difference = [](std::vector<float> const& a, std::vector<float> const& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst;
  };
  auto const near = [&](auto const& a, auto const& b) { return difference(after(a), after(b)) < 1e-6; };
  // Epsilon is beside the root before or behind its correction: none.
  CHECK(near(optim::padam{.lr = 0.01f, .power = 0.5f, .epsilon = 1e-30f},
             optim::amsgrad{.lr = 0.01f, .epsilon = 1e-30f}));
  CHECK(!near(optim::padam{.lr = 0.01f, .epsilon = 1e-30f}, optim::amsgrad{.lr = 0.01f, .epsilon = 1e-30f}));
  // Bounds that hold nothing.
  CHECK(near(optim::amsbound{.gamma = 1e-9f, .epsilon = 1e-30f}, optim::amsgrad{.epsilon = 1e-30f}));
  CHECK(!near(optim::amsbound{.final_ratio = 1, .gamma = 1, .epsilon = 1e-30f}, optim::amsgrad{.epsilon = 1e-30f}));
  CHECK(near(optim::nadamax{.beta1 = 0}, optim::adamax{.lr = 1e-3f, .beta1 = 0}));
  CHECK(
      near(optim::simplified_ademamix{.lr = 0.01f, .beta1 = 0, .beta2 = 0.999f}, optim::adam{.lr = 0.01f, .beta1 = 0}));
  CHECK(after(optim::optimistic_adam{.optimism = 0}) == after(optim::adam{}));
  CHECK(after(optim::optimistic_sgd{.beta = 0}) == after(optim::sgd{}));
  CHECK(near(optim::ftml{.lr = 0.01f, .beta1 = 0}, optim::adam{.lr = 0.01f, .beta1 = 0}));
  CHECK(near(optim::swats{.epsilon = 1e-30f}, optim::adam{.epsilon = 1e-30f}));  // before its switch
  CHECK(near(optim::demon{.momentum = 0}, optim::sgd{}));
  CHECK(near(optim::demon{.steps = 1'000'000'000}, optim::momentum{}));
  CHECK(!near(optim::demon{.steps = 20}, optim::momentum{}));
  CHECK(near(optim::ftrl{.lr = 0.05f, .beta = 0.5f}, optim::adagrad{.lr = 0.05f, .epsilon = 0.5f}));
  // A centre that goes where every step has gone, and holds nothing, is not there.
  CHECK(near(optim::entropy_sgd{.lr = 0.01f, .steps = 1, .scope = 0, .alpha = 1}, optim::sgd{.lr = 0.01f}));
  CHECK(!near(optim::entropy_sgd{.lr = 0.01f, .steps = 2, .scope = 0, .alpha = 0.5f}, optim::sgd{.lr = 0.01f}));
  // Far above the lower bound: always the largest rate.
  CHECK(near(optim::polyak_sgd{.lower_bound = -1e9f, .largest = 1e-3f}, optim::sgd{.lr = 1e-3f}));
  CHECK(!near(optim::polyak_sgd{.largest = 1e-3f}, optim::sgd{.lr = 1e-3f}));
  CHECK(near(optim::momo_adam{.lr = 1e-3f, .lower_bound = -1e9f}, optim::adam{.lr = 1e-3f}));
  CHECK(near(optim::eve{.clipping = 1}, optim::adam{}));
}

TEST_CASE("what a rule cannot work with is refused before anything is made") {
  arena a({{"w", {3}}});
  CHECK_THROWS_WITH_AS(optim::entropy_sgd{.steps = 0}.init(a.parameters()), doctest::Contains("steps is 0"),
                       argument_error);
  CHECK_THROWS_WITH_AS(optim::ftrl{.beta = 0}.init(a.parameters()), doctest::Contains("beta must be positive"),
                       argument_error);
  CHECK_THROWS_WITH_AS(optim::wngrad{.initial = 0}.init(a.parameters()), doctest::Contains("initial is 0"),
                       argument_error);
  CHECK_THROWS_WITH_AS((optim::chain{optim::sgd{}, optim::look_ahead{.steps = 0}}.init(a.parameters())),
                       doctest::Contains("look_ahead: steps is 0"), argument_error);
  CHECK_THROWS_WITH_AS((optim::chain{optim::sgd{}, optim::mean_weights{.every = 0}}.init(a.parameters())),
                       doctest::Contains("mean_weights: every is 0"), argument_error);
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

CONFORMANCE(padam, 0.05f)
CONFORMANCE(amsbound, 0.01f)
CONFORMANCE(nadamax, 0.05f)
CONFORMANCE(simplified_ademamix, 0.002f)
CONFORMANCE(acprop, 0.05f)
CONFORMANCE(optimistic_adam, 0.05f)
CONFORMANCE(ftml, 0.05f)
CONFORMANCE(swats, 0.01f)
CONFORMANCE(optimistic_sgd, 0.05f)
CONFORMANCE(demon, 0.02f)
CONFORMANCE(entropy_sgd, 0.02f)
CONFORMANCE(ftrl, 1.0f)
CONFORMANCE(wngrad, 10.0f, true)
CONFORMANCE(adagrad_norm, 1.0f, true)
CONFORMANCE(dog, 1.0f, true)
CONFORMANCE(dowg, 1.0f, true)
CONFORMANCE(dadapt_adamw, 1.0f)
CONFORMANCE(cocob, 0.0f)
CONFORMANCE(smorms3, 0.02f)
CONFORMANCE(fromage, 0.02f)
CONFORMANCE(percent_delta, 0.02f)
CONFORMANCE(polyak_sgd, 1.0f)
CONFORMANCE(momo, 1.0f, true)
CONFORMANCE(momo_adam, 0.1f, true)
CONFORMANCE(eve, 0.05f)
