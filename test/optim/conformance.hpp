// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What every rule must do, whatever its formula. A rule enters by being listed: CONFORMANCE(rule, rate) with the rate
// at which it descends the bowl of the last test.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync/shard.hpp>

#include <doctest/doctest.h>

#include "ranges.hpp"

namespace conformance {

using namespace dovetail;

/// The rule at hand, for what cannot be said with a template argument.
struct entry {
  std::string name;
  float bowl_rate;
  bool measures_weights = false;  ///< sums over all tensors that depend on their weights, not on gradients alone
};

inline std::vector<arena::tensor> tensors() {
  return {{"a.weight", {1}},     {"a.bias", {31}},      {"none", {0}},
          {"b.weight", {3, 11}}, {"c.weight", {70001}}, {"c.bias", {2}}};
}
inline void fill(std::span<float> x, std::uint32_t stream, float scale = 1) {
  random_stream const r{5, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * (2 * r.uniform(i) - 1);
}
inline bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
inline bool finite(std::span<float const> x) { return all_finite(x); }

/// What backward would show of the matrices of a list, to a rule that learns from layers.
template <class Rule, class State>
void show_layers(Rule const& rule, parameter_list const& p, State& state, int t) {
  if constexpr (optim::optimizer_traits<Rule>::needs.layers)
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i].shape.rank < 2) continue;
      std::int64_t const rows = 16, out = p[i].shape[0], in = p[i].shape.size() / out;
      std::vector<float> x(static_cast<std::size_t>(rows * in)), g(static_cast<std::size_t>(rows * out));
      fill(x, static_cast<std::uint32_t>(1000 + t));
      fill(g, static_cast<std::uint32_t>(2000 + t));
      rule.observe(p, state,
                   kfac_statistics{.first = p.offset(i),
                                   .rows = rows,
                                   .in = in,
                                   .out = out,
                                   .inputs = x.data(),
                                   .output_gradients = g.data(),
                                   .scale = 0.25f});
    }
}

/// The loss of step t, for rules that need one.
inline optim::step_context with_loss(std::uint32_t t, optim::step_context options = {}) {
  options.loss = 1 + static_cast<double>(random_stream{5, 500}.uniform(t));
  return options;
}

/// An arena of weights, and its optimizer's state, after `steps` steps.
template <class Rule>
struct training {
  Rule rule;
  arena a{tensors()};
  optim::state state;

  explicit training(Rule r) : rule(std::move(r)), state((fill(a.weights(), 1), rule.init(a.parameters()))) {}
  void run(int from, int to, optim::step_context const& options = {}) {
    for (int t = from; t <= to; ++t) {
      fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
      show_layers(rule, a.parameters(), state, t);
      rule.step(a.parameters(), state, with_loss(static_cast<std::uint32_t>(t), options));
    }
  }
};

template <class Rule>
void check_groups(Rule const& rule, training<Rule> const& whole, bool measures_weights) {
  Rule still = rule;
  still.lr = 0;
  optim::param_groups const param_groups{rule, optim::group{optim::name_matches{"*.bias"}, still}};
  training biased(rule);
  auto group_state = param_groups.init(biased.a.parameters());
  std::vector<float> const bias(biased.a.parameters()[1].weight.begin(), biased.a.parameters()[1].weight.end());
  for (int t = 1; t <= 8; ++t) {
    fill(biased.a.gradients(), static_cast<std::uint32_t>(100 + t));
    show_layers(param_groups, biased.a.parameters(), group_state, t);
    param_groups.step(biased.a.parameters(), group_state, with_loss(static_cast<std::uint32_t>(t)));
  }
  CHECK(same_bits(biased.a.parameters()[1].weight, bias));
  if (!measures_weights) CHECK(same_bits(biased.a.parameters()[4].weight, whole.a.parameters()[4].weight));
}

/// Each field outside its range: refused by name, at init and between two steps, and nothing has changed.
template <class Rule>
void check_ranges(Rule const& rule) {
  training t(rule);
  t.run(1, 2);
  std::vector<float> const weights(t.a.weights().begin(), t.a.weights().end());
  auto const state = t.state;
  auto const refused = [&](Rule const& wrong, std::string const& words) {
    CHECK_THROWS_WITH_AS(wrong.init(t.a.parameters()), doctest::Contains(words.c_str()), argument_error);
    show_layers(wrong, t.a.parameters(), t.state, 3);
    CHECK_THROWS_WITH_AS(wrong.step(t.a.parameters(), t.state, with_loss(3)), doctest::Contains(words.c_str()),
                         argument_error);
    optim::forget_observed(wrong, t.a.parameters(), t.state);
  };
  auto const words = [](std::string const& field) {
    return std::string(Rule::describe().name) + ": " + field + " is ";
  };
  for (auto const& f : Rule::describe())
    if (f.has_range())
      for (double const x : outside::of(f)) {
        CAPTURE(x);
        Rule wrong = rule;
        f.set(wrong, x);
        refused(wrong, words(f.name()));
      }
  if constexpr (requires(Rule r) { r.lr = optim::cosine{}; })
    for (float const x : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e-6f}) {
      CAPTURE(x);
      Rule wrong = rule;
      wrong.lr = x;
      refused(wrong, words("lr"));
    }
  CHECK(same_bits(t.a.weights(), weights));
  CHECK(t.state == state);
}

/// No epsilon, and gradients of exactly 0: steps of 0, and ordinary ones later.
template <class Rule>
void check_no_epsilon(Rule rule) {
  bool any = false;
  for (auto const& f : Rule::describe())
    if (std::string(f.name()).find("epsilon") != std::string::npos) {
      f.set(rule, 0);
      any = true;
    } else if (std::string(f.name()) == "weight_decay") {
      f.set(rule, 0);
    }
  if (!any) return;
  training t(rule);
  std::vector<float> const weights(t.a.weights().begin(), t.a.weights().end());
  for (int step = 1; step <= 3; ++step) {
    fill(t.a.gradients(), 1, 0);
    show_layers(rule, t.a.parameters(), t.state, step);
    rule.step(t.a.parameters(), t.state, with_loss(static_cast<std::uint32_t>(step)));
  }
  CHECK(same_bits(t.a.weights(), weights));
  t.run(4, 6);
  CHECK(finite(t.a.weights()));
}

template <class Rule>
void check_rule(entry const& e) {
  Rule rule{};
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  CAPTURE(e.name);

  training whole(rule);
  whole.run(1, 8);
  CHECK(finite(whole.a.weights()));
  CHECK(whole.state.steps() == 8);

  // A repetition on more cores: the same bits.
  training again(rule);
  again.run(1, 8, {.threads = 3});
  CHECK(same_bits(again.a.weights(), whole.a.weights()));
  CHECK(again.state == whole.state);

  // Tensors that lie apart from each other.
  {
    std::vector<arena> apart;
    parameter_list list;
    for (auto const& t : tensors()) apart.emplace_back(std::vector{t});
    arena const shapes(tensors());
    std::size_t i = 0;
    training origin(rule);
    for (auto& a : apart) {
      auto const& p = origin.a.parameters()[i++];
      std::copy(p.weight.begin(), p.weight.end(), a.weights().begin());
      list.add(p.name, a.weights(), a.gradients(), p.shape);
    }
    auto state = rule.init(list);
    for (int t = 1; t <= 8; ++t) {
      fill(origin.a.gradients(), static_cast<std::uint32_t>(100 + t));
      for (i = 0; i < apart.size(); ++i) {
        auto const g = origin.a.parameters()[i].gradient;
        std::copy(g.begin(), g.end(), apart[i].gradients().begin());
      }
      show_layers(rule, list, state, t);
      rule.step(list, state, with_loss(static_cast<std::uint32_t>(t)));
    }
    for (i = 0; i < apart.size(); ++i) CHECK(same_bits(apart[i].weights(), whole.a.parameters()[i].weight));
  }

  // Saved by name in the middle, loaded into a new state, copied and moved: the same bits.
  training first(rule);
  first.run(1, 4);
  training second(rule);
  std::copy(first.a.weights().begin(), first.a.weights().end(), second.a.weights().begin());
  auto const saved = first.state.tensors("");
  auto const loaded = second.state.tensors("");
  REQUIRE(saved.size() == loaded.size());
  for (std::size_t i = 0; i < saved.size(); ++i) {
    REQUIRE(saved[i].name == loaded[i].name);
    REQUIRE(saved[i].bytes.size() == loaded[i].bytes.size());
    if (!saved[i].bytes.empty()) std::memcpy(loaded[i].bytes.data(), saved[i].bytes.data(), saved[i].bytes.size());
  }
  CHECK(second.state == first.state);
  auto copy = second.state;
  second.state = std::move(copy);
  second.run(5, 8);
  CHECK(same_bits(second.a.weights(), whole.a.weights()));
  CHECK(second.state == whole.state);

  // Nothing but zeros; gradients near the ends of what a float can hold; then ordinary ones again.
  for (float scale : {0.0f, 1e-40f, 1e-30f, 1e15f}) {
    CAPTURE(scale);
    training extreme(rule);
    for (int t = 1; t <= 3; ++t) {
      fill(extreme.a.gradients(), static_cast<std::uint32_t>(100 + t), scale);
      show_layers(rule, extreme.a.parameters(), extreme.state, t);
      extreme.rule.step(extreme.a.parameters(), extreme.state, with_loss(static_cast<std::uint32_t>(t)));
      REQUIRE(finite(extreme.a.weights()));
    }
  }
  training zero(rule);
  for (float& w : zero.a.weights()) w = 0;
  zero.run(1, 3);
  CHECK(finite(zero.a.weights()));

  // A gradient that is not finite: skipped where the chain looks first.
  training poisoned(rule);
  poisoned.run(1, 2);
  std::vector<float> const before(poisoned.a.weights().begin(), poisoned.a.weights().end());
  optim::chain const guarded{optim::skip_non_finite{}, rule};
  auto state = guarded.init(poisoned.a.parameters());
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    fill(poisoned.a.gradients(), 1);
    poisoned.a.gradients()[40] = bad;
    show_layers(guarded, poisoned.a.parameters(), state, 1);
    CHECK(guarded.step(poisoned.a.parameters(), state, with_loss(1)).skipped);
    CHECK(same_bits(poisoned.a.weights(), before));
    CHECK(state.steps() == 0);
  }

  // A loss that is not finite is as bad.
  if constexpr (optim::optimizer_traits<Rule>::needs.loss) {
    training lost(rule);
    fill(lost.a.gradients(), 1);
    CHECK(lost.rule.step(lost.a.parameters(), lost.state, {.loss = std::numeric_limits<double>::quiet_NaN()}).skipped);
    CHECK(same_bits(lost.a.weights(), training(rule).a.weights()));
    CHECK(lost.state == training(rule).state);
    CHECK_THROWS_WITH_AS(lost.rule.step(lost.a.parameters(), lost.state), doctest::Contains("depend on the loss"),
                         argument_error);
  }

  check_ranges(rule);
  check_no_epsilon(rule);

  // Groups: a rate of 0 for the biases leaves them where they are, and changes nothing for the others, unless what is
  // measured of all depends on where the biases are.
  if constexpr (requires(Rule r) { r.lr = 0; }) check_groups(rule, whole, e.measures_weights);
}

/// An array larger than the second-level cache, on one core and on two.
template <class Rule>
void check_large(entry const& e) {
  CAPTURE(e.name);
  auto const after = [](int threads) {
    Rule const rule{};
    arena a({{"w", {1'500'001}}});
    fill(a.weights(), 1);
    auto state = rule.init(a.parameters());
    if constexpr (optim::optimizer_traits<Rule>::needs.layers)
      state.room().observed = true;  // a vector has no layer to show
    for (std::uint32_t t = 1; t <= 2; ++t) {
      fill(a.gradients(), 100 + t);
      rule.step(a.parameters(), state, with_loss(t, {.threads = threads}));
    }
    CHECK(finite(a.weights()));
    return std::pair(std::vector<float>(a.weights().begin(), a.weights().end()), state);
  };
  auto const one = after(1), two = after(2);
  CHECK(same_bits(one.first, two.first));
  CHECK(one.second == two.second);
}

/// Divided among 1 to 5 ranks: the weights of the undivided rule on all of them, and together its state. Sums over
/// tensors run in another order, in double precision.
template <class Rule>
void check_sharded(entry const& e) {
  CAPTURE(e.name);
  Rule rule{};
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  training whole(rule);
  whole.run(1, 6);
  bool const exact = !static_cast<optim::plan const&>(Rule::plan).reduces();
  for (int ranks = 1; ranks <= 5; ++ranks) {
    CAPTURE(ranks);
    comm::threads(ranks).run([&](auto& c) {
      arena a(tensors());
      fill(a.weights(), 1);
      auto const opt = sync::shard(rule, c);
      auto state = opt.init(a.parameters());
      for (int t = 1; t <= 6; ++t) {
        if (t == 4) state = opt.part_of_state(a.parameters(), opt.gathered(a.parameters(), state));  // saved and loaded
        fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
        CHECK(opt.step(a.parameters(), state, with_loss(static_cast<std::uint32_t>(t))).step == t);
      }
      auto const together = opt.gathered(a.parameters(), state);
      if (exact) {
        CHECK(same_bits(a.weights(), whole.a.weights()));
        CHECK(together == whole.state);
      } else {
        double worst = 0;
        for (std::size_t i = 0; i < a.weights().size(); ++i)
          worst = std::max(worst, std::abs(static_cast<double>(a.weights()[i] - whole.a.weights()[i])));
        CHECK(worst <= 1e-6);
        for (std::size_t c = 0; c < static_cast<optim::plan const&>(Rule::plan).scalars; ++c)
          for (std::size_t i = 0; i < whole.state.scalar(c).size(); ++i)
            CHECK(together.scalar(c)[i] == doctest::Approx(whole.state.scalar(c)[i]).epsilon(1e-6));
      }
      CHECK(together.bytes() == whole.state.bytes());
      if (ranks > 1) CHECK(state.inner.bytes() <= whole.state.bytes());
    });
  }
}

/// Down a bowl whose curvatures differ by a factor of ten, in 1500 steps, with a rate that falls to nothing.
template <class Rule>
void check_descent(entry const& e) {
  CAPTURE(e.name);
  arena a({{"w", {64}}});
  fill(a.weights(), 1);
  for (float& w : a.weights()) w += w < 0 ? -0.5f : 0.5f;
  auto const loss = [&](bool gradients) {
    double sum = 0;
    for (std::size_t i = 0; i < 64; ++i) {
      float const curvature = 1.0f + 9.0f * static_cast<float>(i) / 63.0f, w = a.weights()[i];
      if (gradients) a.gradients()[i] = curvature * w;
      sum += 0.5 * static_cast<double>(curvature * w * w);
    }
    return sum;
  };
  Rule rule{};
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0;
  if constexpr (requires { rule.lr = optim::cosine{}; })
    rule.lr = optim::cosine{.initial = e.bowl_rate, .steps = 1500};
  else if constexpr (requires { rule.lr = 0; })
    rule.lr = e.bowl_rate;  // a number, no schedule
  auto state = rule.init(a.parameters());
  double const begin = loss(true);
  double now = begin;
  for (int t = 0; t < 1500; ++t) {
    if constexpr (optim::optimizer_traits<Rule>::needs.layers)
      state.room().observed = true;  // a vector has no layer to show
    rule.step(a.parameters(), state, {.loss = now});
    now = loss(true);
  }
  CHECK(loss(false) < 1e-3 * begin);
}

#define CONFORMANCE_UNDIVIDED(rule, rate)                                                             \
  TEST_CASE("conformance: " #rule) { conformance::check_rule<dovetail::optim::rule>({#rule, rate}); } \
  TEST_CASE("large: " #rule) { conformance::check_large<dovetail::optim::rule>({#rule, rate}); }      \
  TEST_CASE("descent: " #rule) { conformance::check_descent<dovetail::optim::rule>({#rule, rate}); }
#define CONFORMANCE(rule, ...)                                                                               \
  TEST_CASE("conformance: " #rule) { conformance::check_rule<dovetail::optim::rule>({#rule, __VA_ARGS__}); } \
  TEST_CASE("sharded: " #rule) { conformance::check_sharded<dovetail::optim::rule>({#rule, __VA_ARGS__}); }  \
  TEST_CASE("large: " #rule) { conformance::check_large<dovetail::optim::rule>({#rule, __VA_ARGS__}); }      \
  TEST_CASE("descent: " #rule) { conformance::check_descent<dovetail::optim::rule>({#rule, __VA_ARGS__}); }

}  // namespace conformance
