// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What every rule must do, whatever its formula. A rule enters by its line in the library's list.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/threads.hpp>
#include <dovetail/optim/schedules.hpp>
#include <dovetail/sync/shard.hpp>

#include <doctest/doctest.h>

#include "ranges.hpp"
#include "rules/known.hpp"
#include "training.hpp"

namespace conformance {

/// With weight decay, if the rule has any.
inline known::recipe decayed(known::rule const& r, float decay = 0.02f) {
  known::recipe x;
  if (r.field("weight_decay")) x.unchecked.push_back({"weight_decay", decay});
  return x;
}
inline known::recipe with(known::recipe x, std::string const& field, optim::setting_value value) {
  x.unchecked.push_back({field, std::move(value)});
  return x;
}

/// Biases in a group whose rate is 0 stay where they are, and the others go where they go when nobody moves the biases.
inline void check_groups(known::rule const& r) {
  auto const recipe = decayed(r);
  auto const rule = r.any(recipe);
  auto const bias = [](parameter_list const& p, std::size_t i) { return p[i].name.ends_with(".bias"); };
  training held(rule), biased(rule);
  std::vector<float> const before(held.a.weights().begin(), held.a.weights().end());
  auto const grouped = r.groups(recipe, "*.bias", with(recipe, "lr", 0));
  auto state = grouped.init(biased.a.parameters());
  for (int t = 1; t <= 8; ++t) {
    held.run(t, t);
    auto const& p = held.a.parameters();
    for (std::size_t i = 0; i < p.size(); ++i)
      if (bias(p, i)) std::copy_n(before.data() + p.offset(i), p[i].size(), p[i].weight.data());
    fill(biased.a.gradients(), static_cast<std::uint32_t>(100 + t));
    show_layers(grouped, biased.a.parameters(), state, t);
    grouped.step(biased.a.parameters(), state, with_loss(static_cast<std::uint32_t>(t)));
  }
  CHECK(same_bits(biased.a.parameters()[1].weight, held.a.parameters()[1].weight));
  CHECK(same_bits(biased.a.parameters()[4].weight, held.a.parameters()[4].weight));
}

/// Each field outside its range: refused by name, at init and between two steps, and nothing has changed.
inline void check_ranges(known::rule const& r) {
  auto const recipe = decayed(r);
  training t(r.any(recipe));
  t.run(1, 2);
  std::vector<float> const weights(t.a.weights().begin(), t.a.weights().end());
  auto const state = t.state;
  auto const refused = [&](std::string const& field, double x) {
    CAPTURE(field);
    CAPTURE(x);
    auto const wrong = r.any(with(recipe, field, x));
    auto const words = r.name + ": " + field + " is ";
    CHECK_THROWS_WITH_AS(wrong.init(t.a.parameters()), doctest::Contains(words.c_str()), argument_error);
    show_layers(wrong, t.a.parameters(), t.state, 3);
    CHECK_THROWS_WITH_AS(wrong.step(t.a.parameters(), t.state, with_loss(3)), doctest::Contains(words.c_str()),
                         argument_error);
    optim::forget_observed(wrong, t.a.parameters(), t.state);
  };
  for (auto const& f : r.fields)
    if (f.says.has_range())
      for (double const x : outside::of(f.says)) refused(f.says.name(), x);
  if (r.has_schedule())
    for (double const x : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1e-6})
      refused("lr", x);
  CHECK(same_bits(t.a.weights(), weights));
  CHECK(t.state == state);
}

/// No epsilon, and gradients of exactly 0: steps of 0, and ordinary ones later.
inline void check_no_epsilon(known::rule const& r) {
  known::recipe recipe;
  for (auto const& f : r.fields)
    if (std::string(f.says.name()).find("epsilon") != std::string::npos) recipe = with(recipe, f.says.name(), 0);
  if (recipe.unchecked.empty()) return;
  if (r.field("weight_decay")) recipe = with(recipe, "weight_decay", 0);
  training t(r.any(recipe));
  std::vector<float> const weights(t.a.weights().begin(), t.a.weights().end());
  for (int step = 1; step <= 3; ++step) {
    fill(t.a.gradients(), 1, 0);
    show_layers(t.rule, t.a.parameters(), t.state, step);
    t.rule.step(t.a.parameters(), t.state, with_loss(static_cast<std::uint32_t>(step)));
  }
  CHECK(same_bits(t.a.weights(), weights));
  t.run(4, 6);
  CHECK(finite(t.a.weights()));
}

inline void check_rule(known::rule const& r) {
  auto const recipe = decayed(r);
  auto const rule = r.any(recipe);
  CAPTURE(r.name);

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
  auto const guarded = r.guarded(recipe);
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
  if (r.needs.loss) {
    training lost(rule);
    fill(lost.a.gradients(), 1);
    CHECK(lost.rule.step(lost.a.parameters(), lost.state, {.loss = std::numeric_limits<double>::quiet_NaN()}).skipped);
    CHECK(same_bits(lost.a.weights(), training(rule).a.weights()));
    CHECK(lost.state == training(rule).state);
    CHECK_THROWS_WITH_AS(lost.rule.step(lost.a.parameters(), lost.state), doctest::Contains("depend on the loss"),
                         argument_error);
  }

  check_ranges(r);
  check_no_epsilon(r);
  if (r.field("lr")) check_groups(r);
}

/// An array larger than the second-level cache, on one core and on two.
inline void check_large(known::rule const& r) {
  CAPTURE(r.name);
  auto const rule = r.any();
  auto const after = [&](int threads) {
    arena a({{"w", {1'500'001}}});
    fill(a.weights(), 1);
    auto state = rule.init(a.parameters());
    if (r.needs.layers) state.scratch().observed = true;  // a vector has no layer to show
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
/// tensors run in another order, in double precision. What learns from layers is refused.
inline void check_sharded(known::rule const& r) {
  CAPTURE(r.name);
  auto const rule = r.any(decayed(r));
  if (r.needs.layers) {
    comm::threads(2).run([&](auto& c) {
      CHECK_THROWS_WITH_AS(sync::shard(rule, c), doctest::Contains("learns from layers"), argument_error);
    });
    return;
  }
  training whole(rule);
  whole.run(1, 6);
  bool const exact = !r.plan.reduces();
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
        for (std::size_t k = 0; k < r.plan.scalars; ++k)
          for (std::size_t i = 0; i < whole.state.scalar(k).size(); ++i)
            CHECK(together.scalar(k)[i] == doctest::Approx(whole.state.scalar(k)[i]).epsilon(1e-6));
      }
      CHECK(together.bytes() == whole.state.bytes());
      if (ranks > 1) CHECK(state.inner.bytes() <= whole.state.bytes());
    });
  }
}

/// Down a bowl whose curvatures differ by a factor of ten, in 1500 steps, with a rate that falls to nothing. The share
/// of the loss that is left.
inline double left_of_bowl(known::rule const& r, float rate) {
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
  auto recipe = decayed(r, 0);
  if (r.has_schedule())
    recipe = with(recipe, "lr", optim::cosine{.initial = rate, .steps = 1500});
  else if (r.field("lr"))
    recipe = with(recipe, "lr", rate);  // a number, no schedule
  auto const rule = r.any(recipe);
  auto state = rule.init(a.parameters());
  double const begin = loss(true);
  double now = begin;
  for (int t = 0; t < 1500; ++t) {
    if (r.needs.layers) state.scratch().observed = true;  // a vector has no layer to show
    rule.step(a.parameters(), state, {.loss = now});
    now = loss(true);
  }
  return loss(false) / begin;
}

/// At the rate that is said; a rule of which nothing is said finds one of these.
inline void check_descent(known::rule const& r, std::vector<float> const& rates) {
  CAPTURE(r.name);
  double least = std::numeric_limits<double>::infinity();
  for (float const rate : rates)
    if (double const left = left_of_bowl(r, rate); left < least) least = left;
  CHECK(least < 1e-3);
}

}  // namespace conformance

// Four cases of each rule, by name, so that each can be run alone: -tc="*: adam".
#define CONFORMANCE(name, rule, rates)                                \
  TEST_CASE("conformance: " #name) { conformance::check_rule(rule); } \
  TEST_CASE("sharded: " #name) { conformance::check_sharded(rule); }  \
  TEST_CASE("large: " #name) { conformance::check_large(rule); }      \
  TEST_CASE("descent: " #name) { conformance::check_descent(rule, rates); }
