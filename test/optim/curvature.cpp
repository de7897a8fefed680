// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that divide by the Hessian's diagonal: against transcriptions of their papers (goldens/make.py), as rules among
// others, and with estimates of real curvature.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/nn/gauss_newton.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/second_order/batch_objective.hpp>
#include <dovetail/optim/second_order/hvp.hpp>

#include <doctest/doctest.h>

#include "functions.hpp"
#include "goldens.hpp"
#include "training.hpp"

namespace optim_curvature {

using namespace golden;

namespace {

/// Weights after each step, an estimate draw(1000 + t) being given before step t, every `every` steps.
template <class Optimizer>
run observing(Optimizer opt, int every) {
  return [opt, every](std::vector<arena::tensor> const& tensors) {
    arena a(tensors);
    draw(a.weights(), 0);
    auto& p = a.parameters();
    auto state = opt.init(p);
    std::vector<float> estimate(p.flat_size());
    trajectory seen;
    for (int t = 1; t <= steps; ++t) {
      if ((t - 1) % every == 0) {
        draw(estimate, static_cast<std::uint64_t>(1000 + t));
        CHECK(opt.observe(p, state, optim::hessian_diagonal{estimate}));
      }
      draw(a.gradients(), static_cast<std::uint64_t>(t));
      opt.step(p, state);
      seen[t].assign(a.weights().begin(), a.weights().end());
    }
    return seen;
  };
}

optim::adahessian const ada{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-2f, .weight_decay = decay};
auto const with_average = [](optim::spatial average, float weight_decay) {
  auto rule = ada;
  rule.average = average;
  rule.weight_decay = weight_decay;
  return rule;
};
auto const with_power = [](float power) {
  auto rule = ada;
  rule.power = power;
  return rule;
};
std::map<std::string, run> const rules{
    {"adahessian", observing(ada, 3)},
    {"adahessian_row", observing(with_average(optim::spatial::row, decay), 1)},
    {"adahessian_none", observing(with_average(optim::spatial::none, 0), 5)},
    {"adahessian_power", observing(with_power(0.5f), 3)},
    {"adahessian_default", observing(optim::adahessian{}, 2)},
    {"sophia", observing(optim::sophia{.lr = 0.02f,
                                       .beta1 = 0.8f,
                                       .beta2 = 0.7f,
                                       .gamma = 2,
                                       .epsilon = 1e-3f,
                                       .clipping = 0.5f,
                                       .weight_decay = decay},
                         3)},
    {"sophia_unclipped",
     observing(
         optim::sophia{
             .lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.7f, .gamma = 1, .epsilon = 1, .clipping = 9, .weight_decay = decay},
         4)},
    {"sophia_default", observing(optim::sophia{}, 10)},
};

static_assert(optimizer<optim::adahessian> && optimizer<optim::sophia>);
static_assert(optim::adahessian::passes == 1 && optim::adahessian::bytes_per_parameter == 32);
static_assert(optim::sophia::passes == 1 && optim::sophia::bytes_per_parameter == 24);

}  // namespace

TEST_CASE("AdaHessian and Sophia go the way of their papers in double precision") {
  compare(DOVETAIL_GOLDENS_CURVATURE, {{"a", {2, 3, 2, 2}}, {"b", {3, 5}}, {"c", {7}}}, rules, 2e-5);
}

TEST_CASE("an observation that is not finite or does not fit changes nothing; extremes do no harm") {
  arena a({{"a", {4}}, {"b", {3}}});
  draw(a.weights(), 0);
  optim::sophia const rule{};
  optim::chain const guarded{optim::clip_by_global_norm{1}, optim::sophia{}};
  auto state = rule.init(a.parameters());
  std::vector<float> estimate(7, 2.0f);
  CHECK(rule.observe(a.parameters(), state, optim::hessian_diagonal{estimate}));
  CHECK(state.slot_name(1) == "hessian_diagonal");
  CHECK(state.slot(1)[6] == doctest::Approx(0.02));
  auto const before = state;
  estimate[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(!rule.observe(a.parameters(), state, optim::hessian_diagonal{estimate}));
  CHECK(state == before);
  CHECK_THROWS_AS(rule.observe(a.parameters(), state, optim::hessian_diagonal{std::span(estimate).first(3)}),
                  argument_error);
  auto in_chain = guarded.init(a.parameters());
  estimate[3] = 1;
  CHECK(guarded.observe(a.parameters(), in_chain, optim::hessian_diagonal{estimate}));
  CHECK(in_chain.slot(1)[0] == doctest::Approx(0.02));
  auto other = optim::sgd{}.init(a.parameters());
  CHECK_THROWS_AS(rule.observe(a.parameters(), other, optim::hessian_diagonal{estimate}), argument_error);
  optim::adahessian const adahessian{};
  for (float extreme : {0.0f, 1e-30f, -1e30f, 3e38f}) {
    arena b({{"a", {4}}, {"b", {3}}});
    auto s = adahessian.init(b.parameters());
    auto t = rule.init(b.parameters());
    for (int k = 1; k <= 3; ++k) {
      draw(b.gradients(), static_cast<std::uint64_t>(k));
      std::fill(estimate.begin(), estimate.end(), extreme);
      adahessian.observe(b.parameters(), s, optim::hessian_diagonal{estimate});
      adahessian.step(b.parameters(), s);
      rule.observe(b.parameters(), t, optim::hessian_diagonal{estimate});
      rule.step(b.parameters(), t);
      CHECK(all_finite(b.weights()));
    }
  }
}

TEST_CASE("with the curvature of a badly scaled bowl, both rules go down where momentum at its best rate crawls") {
  std::vector<double> const curvature = test::spread(40, 1e4);
  test::as_objective f{test::quadratic(curvature)};
  auto const descend = [&](auto const& rule, bool observes) {
    arena a({{"x", {40}}});
    auto& p = a.parameters();
    auto state = rule.init(p);
    optim::hessian_product product(f, p);
    std::vector<float> estimate(40);
    for (std::uint64_t t = 0; t < 300; ++t) {
      if constexpr (
          requires { rule.average; } || requires { rule.clipping; })
        if (observes && t % 10 == 0) {
          optim::hutchinson_diagonal(product, {.seed = 1, .step = t}, estimate);
          rule.observe(p, state, optim::hessian_diagonal{estimate});
        }
      f(p);
      rule.step(p, state);
    }
    return f(p);
  };
  auto const falling = [](float rate) { return optim::cosine{.initial = rate, .steps = 300}; };
  double momentum = 1e9;
  for (float rate : {1e-5f, 3e-5f, 1e-4f, 2e-4f, 3e-4f})
    for (float inertia : {0.9f, 0.97f})
      if (double const l = descend(optim::momentum{.lr = falling(rate), .momentum = inertia}, false); l < momentum)
        momentum = l;
  double const ada = descend(optim::adahessian{.lr = falling(0.15f)}, true);
  double const sophia =
      descend(optim::sophia{.lr = falling(0.05f), .beta1 = 0.9f, .beta2 = 0.9f, .gamma = 1, .weight_decay = 0}, true);
  CHECK(ada < 0.01 * momentum);
  CHECK(sophia < 0.01 * momentum);
}

}  // namespace optim_curvature
