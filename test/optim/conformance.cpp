// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every rule must do, whatever its formula. A rule enters by being listed in RULES, with the rate at which it
// descends the bowl of the last test.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

using namespace dovetail;

namespace {

template <class Rule>
struct bowl_rate;
#define RULES(rule)                                                                                                    \
  rule(sgd, 0.1f) rule(momentum, 0.02f) rule(nesterov, 0.02f) rule(adam, 0.05f) rule(adamw, 0.05f) rule(lars, 20.0f)   \
      rule(lamb, 0.05f) rule(sign_sgd, 0.02f) rule(signum, 0.02f) rule(lion, 0.02f) rule(qhm, 0.1f)                    \
          rule(adagrad, 0.5f) rule(adadelta, 30.0f) rule(rmsprop, 0.02f) rule(rmsprop_momentum, 0.01f)                 \
              rule(rmsprop_centred, 0.02f) rule(rprop, 1.0f) rule(adamax, 0.05f) rule(nadam, 0.05f)                    \
                  rule(amsgrad, 0.05f) rule(radam, 0.05f) rule(adabound, 0.01f) rule(adabelief, 0.05f)                 \
                      rule(yogi, 0.05f) rule(qhadam, 0.05f) rule(ademamix, 0.02f) rule(adopt, 0.05f) rule(adan, 0.05f) \
                          rule(schedule_free_sgd, 0.1f) rule(schedule_free_adamw, 0.05f)
#define DEFINE_RATE(rule, rate)                \
  template <>                                  \
  struct bowl_rate<optim::rule> {              \
    static constexpr float value = rate;       \
    static constexpr char const* name = #rule; \
  };
RULES(DEFINE_RATE)
#undef DEFINE_RATE

std::vector<arena::tensor> tensors() {
  return {{"a.weight", {1}},     {"a.bias", {31}},      {"none", {0}},
          {"b.weight", {3, 11}}, {"c.weight", {70001}}, {"c.bias", {2}}};
}
void fill(std::span<float> x, std::uint32_t stream, float scale = 1) {
  random_stream const r{5, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * (2 * r.uniform(i) - 1);
}
bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
bool finite(std::span<float const> x) { return all_finite(x); }

/// An arena of weights, and its optimizer's state, after `steps` steps.
template <class Rule>
struct training {
  Rule rule;
  arena a{tensors()};
  optim::state state;

  explicit training(Rule r) : rule(std::move(r)), state((fill(a.weights(), 1), rule.init(a.parameters()))) {}
  void run(int from, int to, optim::step_options const& options = {}) {
    for (int t = from; t <= to; ++t) {
      fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
      rule.step(a.parameters(), state, options);
    }
  }
};

template <class Rule>
void check_rule() {
  Rule rule{};
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  CAPTURE(bowl_rate<Rule>::name);

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
      rule.step(list, state);
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
  for (float scale : {0.0f, 1e-30f, 1e15f}) {
    CAPTURE(scale);
    training extreme(rule);
    for (int t = 1; t <= 3; ++t) {
      fill(extreme.a.gradients(), static_cast<std::uint32_t>(100 + t), scale);
      extreme.rule.step(extreme.a.parameters(), extreme.state);
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
    CHECK(guarded.step(poisoned.a.parameters(), state).skipped);
    CHECK(same_bits(poisoned.a.weights(), before));
    CHECK(state.steps() == 0);
  }

  // Groups: a rate of 0 for the biases leaves them where they are, and changes nothing for the others.
  Rule still = rule;
  still.lr = 0;
  optim::grouped const grouped{rule, optim::group{optim::name_matches{"*.bias"}, still}};
  training biased(rule);
  auto group_state = grouped.init(biased.a.parameters());
  std::vector<float> const bias(biased.a.parameters()[1].weight.begin(), biased.a.parameters()[1].weight.end());
  for (int t = 1; t <= 8; ++t) {
    fill(biased.a.gradients(), static_cast<std::uint32_t>(100 + t));
    grouped.step(biased.a.parameters(), group_state);
  }
  CHECK(same_bits(biased.a.parameters()[1].weight, bias));
  CHECK(same_bits(biased.a.parameters()[4].weight, whole.a.parameters()[4].weight));
}

/// Down a bowl whose curvatures differ by a factor of ten, in 1500 steps, with a rate that falls to nothing.
template <class Rule>
void check_descent() {
  CAPTURE(bowl_rate<Rule>::name);
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
    rule.lr = optim::cosine{.initial = bowl_rate<Rule>::value, .steps = 1500};
  else
    rule.lr = bowl_rate<Rule>::value;  // schedule-free
  auto state = rule.init(a.parameters());
  double const begin = loss(true);
  for (int t = 0; t < 1500; ++t) {
    rule.step(a.parameters(), state);
    loss(true);
  }
  CHECK(loss(false) < 1e-3 * begin);
}

}  // namespace

TEST_CASE("limiting cases: a policy around a rule that does nothing leaves the rule's bits, or nearly so") {
  auto const after = [](auto rule) {
    training t(rule);
    t.run(1, 8);
    return std::vector<float>(t.a.weights().begin(), t.a.weights().end());
  };
  auto const near = [](std::vector<float> const& a, std::vector<float> const& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst < 1e-6;
  };
  optim::adamw const w{.weight_decay = 0};
  auto const plain = after(w);
  CHECK(after(optim::adam{}) == plain);  // AdamW without decay is Adam
  CHECK(after(optim::chain{w, optim::average_weights{}}) == plain);
  CHECK(after(optim::chain{w, optim::mean_weights{}}) == plain);
  CHECK(near(after(optim::chain{w, optim::look_ahead{.steps = 1, .alpha = 1}}), plain));
  CHECK(!near(after(optim::chain{w, optim::look_ahead{.steps = 1, .alpha = 0.5f}}), plain));
  CHECK(near(after(optim::qhadam{.nu1 = 1, .nu2 = 1, .beta1 = 0.9f}), plain));
  CHECK(near(after(optim::ademamix{.alpha = 0}), plain));
  auto const sgd = after(optim::sgd{.lr = 0.01f});
  CHECK(near(after(optim::qhm{.lr = 0.01f, .nu = 0}), sgd));
  CHECK(after(optim::momentum{.lr = 0.01f, .momentum = 0}) == sgd);
  CHECK(after(optim::signum{.momentum = 0}) == after(optim::sign_sgd{}));
  CHECK(near(after(optim::lion{.lr = 1e-3f, .beta1 = 0, .beta2 = 0}), after(optim::sign_sgd{})));
  CHECK(near(after(optim::rmsprop_momentum{.momentum = 0}), after(optim::rmsprop{})));
}

TEST_CASE("averages are asked for by their rule, and only when there are any") {
  training t(optim::chain{optim::sgd{.lr = 0.1f}, optim::average_weights{.decay = 0.5f}});
  std::vector<float> out(t.a.parameters().flat_size());
  CHECK_THROWS_WITH_AS(optim::averaged_weights(t.rule, t.a.parameters(), t.state, out),
                       doctest::Contains("before the first step"), argument_error);
  t.run(1, 1);
  optim::averaged_weights(t.rule, t.a.parameters(), t.state, out);
  CHECK(same_bits(out, t.a.weights()));  // the average begins with the weights of the first step
  CHECK_THROWS_WITH_AS(optim::averaged_weights(t.rule, t.a.parameters(), t.state, std::span(out).first(3)),
                       doctest::Contains("room for 3 weights"), argument_error);
}

#define CONFORMS(rule, rate) \
  TEST_CASE("conformance: " #rule) { check_rule<optim::rule>(); }
RULES(CONFORMS)
#define DESCENDS(rule, rate) \
  TEST_CASE("descent: " #rule) { check_descent<optim::rule>(); }
RULES(DESCENDS)
