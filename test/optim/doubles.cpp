// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parameters of doubles: every rule steps them, and nothing on the way is rounded to floats.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>

#include <doctest/doctest.h>

#include "doubles.hpp"

namespace optim_doubles {

TEST_CASE("every rule steps doubles, and rounds none of them to a float") {
  for (auto const& r : known::all()) doubles::check_rule(*r);
}

TEST_CASE("a step of doubles is the formula in double precision") {
  using namespace dovetail;
  // AdamW by hand. Hyperparameters and what follows from them once a step are floats.
  float const lr = 0.01f, b1 = 0.9f, b2 = 0.999f, eps = 1e-8f, decay = 0.1f;
  basic_arena<double> a({{"w", {103}}});
  for (std::size_t i = 0; i < 103; ++i) a.weights()[i] = doubles::value(1, i);
  std::vector<double> w(a.weights().begin(), a.weights().end()), m(103), v(103);
  optim::adamw const rule{.lr = lr, .weight_decay = decay};
  auto s = rule.init(a.parameters());
  for (int t = 1; t <= 40; ++t) {
    auto const of = [](double x) { return static_cast<double>(static_cast<float>(x)); };
    double const c1 = of(1 / (1 - std::pow(static_cast<double>(b1), t))),
                 c2 = of(1 / std::sqrt(1 - std::pow(static_cast<double>(b2), t)));
    for (std::size_t i = 0; i < 103; ++i) {
      double const g = a.gradients()[i] = doubles::value(10 + static_cast<std::uint64_t>(t), i) + 0.3 * w[i];
      m[i] = double(b1) * m[i] + (1 - double(b1)) * g;
      v[i] = double(b2) * v[i] + of(1 - double(b2)) * g * g;
      w[i] -= double(lr) * (c1 * m[i] / (c2 * std::sqrt(v[i]) + double(eps)) + double(decay) * w[i]);
    }
    rule.step(a.parameters(), s);
  }
  double most = 0;
  for (std::size_t i = 0; i < 103; ++i) most = std::max(most, std::abs(w[i] - a.weights()[i]));
  CHECK(most < 1e-14);
  CHECK(s.slot(0).size() == 103);
}

TEST_CASE("steps of doubles converge to the last digits") {
  using namespace dovetail;
  // Minimum at w* = 1/3 + i, which no float is.
  auto const distance = [](auto const& rule, int steps) {
    basic_arena<double> a({{"w", {9, 5}}});
    auto s = rule.init(a.parameters());
    for (int t = 0; t < steps; ++t) {
      for (std::size_t i = 0; i < 45; ++i)
        a.gradients()[i] = (1 + static_cast<double>(i % 7)) * (a.weights()[i] - (1.0 / 3 + static_cast<double>(i)));
      rule.step(a.parameters(), s);
    }
    double most = 0;
    for (std::size_t i = 0; i < 45; ++i)
      most = std::max(most, std::abs(a.weights()[i] - (1.0 / 3 + static_cast<double>(i))));
    return most;
  };
  CHECK(distance(optim::momentum{.lr = 0.1f, .momentum = 0.8f}, 600) < 1e-12);
  CHECK(distance(optim::nesterov{.lr = 0.1f, .momentum = 0.8f}, 600) < 1e-12);
  CHECK(distance(optim::qhm{.lr = 0.3f, .beta = 0.9f}, 3000) < 1e-12);
  CHECK(distance(optim::adagrad{.lr = 3.0f}, 3000) < 1e-12);
  CHECK(distance(optim::rprop{}, 3000) < 1e-5);
  CHECK(distance(optim::chain{optim::skip_non_finite{}, optim::clip_by_global_norm{1e6f}, optim::sgd{.lr = 0.1f}},
                 1500) < 1e-12);
}

TEST_CASE("averages of doubles are doubles") {
  using namespace dovetail;
  // All weights stay at 1/3: so do their averages, to the last digits.
  auto const off = [](auto const& rule) {
    basic_arena<double> a({{"w", {37}}});
    std::fill(a.weights().begin(), a.weights().end(), 1.0 / 3);
    auto s = rule.init(a.parameters());
    for (int t = 0; t < 50; ++t) rule.step(a.parameters(), s);
    std::vector<double> out(37);
    optim::averaged_weights(rule, a.parameters(), s, out);
    double most = 0;
    for (double const x : out) most = std::max(most, std::abs(x - 1.0 / 3));
    return most;
  };
  CHECK(off(optim::chain{optim::sgd{}, optim::ema_weights{}}) < 1e-15);
  CHECK(off(optim::chain{optim::sgd{}, optim::swa_weights{}}) < 1e-15);
  CHECK(off(optim::chain{optim::sgd{}, optim::lookahead{}}) < 1e-15);
}

TEST_CASE("groups and partitions of doubles step each tensor as its rule does") {
  using namespace dovetail;
  doubles::training<double> by_groups(optim::param_groups{
      optim::adamw{.lr = 0.02f}, optim::group{optim::name_matches{"b.*"}, optim::adamw{.lr = 0.001f}}});
  doubles::training<double> slow(optim::adamw{.lr = 0.001f}), fast(optim::adamw{.lr = 0.02f}),
      other(optim::momentum{.lr = 0.1f, .momentum = 0.9f});
  doubles::training<double> parts(
      optim::partition{optim::adamw{.lr = 0.02f},
                       optim::group{optim::name_matches{"b.*"}, optim::momentum{.lr = 0.1f, .momentum = 0.9f}},
                       optim::group{optim::name_matches{"c.*"}, optim::frozen{}}});
  std::vector<double> const before(parts.a.weights().begin(), parts.a.weights().end());
  for (auto* t : {&by_groups, &slow, &fast, &other, &parts}) t->run(20);
  auto const& p = by_groups.a.parameters();
  for (std::size_t i = 0; i < p.size(); ++i)
    for (std::size_t k = 0; k < p[i].size(); ++k) {
      std::size_t const at = p.offset(i) + k;
      bool const b = p[i].name[0] == 'b', c = p[i].name[0] == 'c';
      REQUIRE(by_groups.a.weights()[at] == (b ? slow : fast).a.weights()[at]);
      REQUIRE(parts.a.weights()[at] == (c ? before[at] : (b ? other : fast).a.weights()[at]));
    }
}

TEST_CASE("a column-major tensor of doubles is stepped as its transpose by rows") {
  using namespace dovetail;
  std::vector<double> by_rows(15), gradient_by_rows(15), by_columns(15), gradient_by_columns(15);
  basic_parameter_list<double> rows, columns;
  rows.add("w", by_rows, gradient_by_rows, {3, 5});
  columns.add("w", by_columns, gradient_by_columns, {3, 5}, layout::column_major);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < 5; ++c) by_rows[5 * r + c] = by_columns[3 * c + r] = doubles::value(1, 5 * r + c);
  optim::sm3 const rule{.lr = 0.05f};
  auto s = rule.init(rows), t = rule.init(columns);
  for (std::uint64_t step = 0; step < 9; ++step) {
    for (std::size_t r = 0; r < 3; ++r)
      for (std::size_t c = 0; c < 5; ++c)
        gradient_by_rows[5 * r + c] = gradient_by_columns[3 * c + r] = doubles::value(50 + step, 5 * r + c);
    rule.step(rows, s);
    rule.step(columns, t);
  }
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < 5; ++c) CHECK(by_rows[5 * r + c] == by_columns[3 * c + r]);
}

TEST_CASE("a gradient of doubles that is not finite skips the step") {
  using namespace dovetail;
  for (double const bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    doubles::training<double> t(optim::chain{optim::skip_non_finite{}, optim::adamw{}});
    t.run(3);
    std::vector<double> const before(t.a.weights().begin(), t.a.weights().end());
    t.a.gradients()[17] = bad;
    CHECK(t.step().skipped);
    CHECK(std::equal(before.begin(), before.end(), t.a.weights().begin()));
  }
  std::vector<double> x(40, 1.0);
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(all_finite(std::span<double const>(x)));
    x[i] = i % 2 ? HUGE_VAL : std::nan("");
    CHECK_FALSE(all_finite(std::span<double const>(x)));
    x[i] = i % 2 ? 1.7e308 : -5e-324;
  }
}

TEST_CASE("doubles that no float could square are stepped; sums that overflow skip") {
  using namespace dovetail;
  auto const skipped = [](double g) {
    doubles::training<double> t(optim::chain{optim::skip_non_finite{}, optim::sgd{.lr = 0.1f}});
    std::fill(t.a.gradients().begin(), t.a.gradients().end(), g);
    auto const before = t.a.weights()[3];
    bool const skips = t.step().skipped;
    CHECK(t.a.weights()[3] == (skips ? before : before - static_cast<double>(0.1f) * g));
    return skips;
  };
  CHECK_FALSE(skipped(1e20));
  CHECK_FALSE(skipped(1e150));
  CHECK(skipped(1e160));
}

TEST_CASE("scaled gradients of doubles") {
  using namespace dovetail;
  basic_arena<double> a({{"w", {13}}}), b({{"w", {13}}}), c({{"w", {13}}});
  optim::stochastic_lbfgs const rule{};
  optim::momentum const other{};
  auto s = rule.init(a.parameters()), t = rule.init(b.parameters());
  auto u = other.init(c.parameters());
  for (std::size_t i = 0; i < 13; ++i) {
    a.gradients()[i] = doubles::value(1, i);
    b.gradients()[i] = c.gradients()[i] = 2 * doubles::value(1, i);
  }
  rule.step(a.parameters(), s, optim::gradient::scaled{2});
  rule.step(b.parameters(), t);
  other.step(c.parameters(), u, optim::gradient::scaled{0.5f});
  CHECK(std::equal(a.weights().begin(), a.weights().end(), b.weights().begin()));
  CHECK(c.weights()[5] == -static_cast<double>(other.lr(0)) * doubles::value(1, 5));
}

TEST_CASE("a step of doubles that cannot divide its work changes nothing") {
  using namespace dovetail;
  doubles::training<double> t(
      optim::chain{optim::scale_by_adam{}, optim::centralize{}, optim::scale_by_learning_rate{0.1f}});
  t.context.preconditioning.ranks = 2;
  std::vector<double> const before(t.a.weights().begin(), t.a.weights().end());
  std::fill(t.a.gradients().begin(), t.a.gradients().end(), 1.0);
  CHECK_THROWS_WITH_AS(t.step(), doctest::Contains("these are doubles"), argument_error);
  for (auto const& x : t.listed())
    for (auto const byte : x.bytes) REQUIRE(byte == std::byte{0});
  CHECK(std::equal(before.begin(), before.end(), t.a.weights().begin()));
}

TEST_CASE("threads change no bit of steps of doubles") {
  using namespace dovetail;
  for (int threads : {2, 3}) {
    doubles::training<double> one(optim::lamb{}), several(optim::lamb{}), rows(optim::adafactor{}),
        rows_too(optim::adafactor{});
    one.run(5), rows.run(5);
    several.context.threads = rows_too.context.threads = threads;
    several.run(5), rows_too.run(5);
    CHECK(std::memcmp(one.a.weights().data(), several.a.weights().data(), one.a.weights().size_bytes()) == 0);
    CHECK(std::memcmp(rows.a.weights().data(), rows_too.a.weights().data(), rows.a.weights().size_bytes()) == 0);
  }
}

TEST_CASE("a state of doubles is listed and restored as doubles") {
  using namespace dovetail;
  doubles::training<double> whole(optim::adamw{}), half(optim::adamw{}), rest(optim::adamw{});
  whole.run(20);
  half.run(10);
  auto saved = half.listed(), loaded = rest.listed();
  REQUIRE(saved.size() == loaded.size());
  std::size_t of_doubles = 0;
  for (std::size_t i = 0; i < saved.size(); ++i) {
    REQUIRE(saved[i].name == loaded[i].name);
    REQUIRE(saved[i].type == loaded[i].type);
    of_doubles += saved[i].type == dtype::f64;
    CHECK(saved[i].type != dtype::f32);
    if (!saved[i].bytes.empty()) std::memcpy(loaded[i].bytes.data(), saved[i].bytes.data(), saved[i].bytes.size());
  }
  CHECK(of_doubles == 2 * half.a.parameters().size());
  std::copy(half.a.weights().begin(), half.a.weights().end(), rest.a.weights().begin());
  rest.t = half.t;
  rest.run(20);
  CHECK(std::memcmp(rest.a.weights().data(), whole.a.weights().data(), whole.a.weights().size_bytes()) == 0);
}

TEST_CASE("lists of doubles know their memory") {
  using namespace dovetail;
  std::vector<double> w(4), g(4);
  basic_parameter_list<double> p;
  p.add("w", w, g);
  std::vector<double> other(4);
  CHECK_THROWS_WITH_AS(p.add("v", std::span(w).subspan(3), std::span(other).first(1)),
                       doctest::Contains("shares memory with the weight of 'w'"), argument_error);
  auto* const odd = reinterpret_cast<double*>(reinterpret_cast<std::byte*>(other.data()) + 4);
  CHECK_THROWS_WITH_AS(p.add("v", std::span(odd, 1), std::span(other).subspan(3)),
                       doctest::Contains("not aligned as doubles are"), argument_error);
  CHECK_THROWS_WITH_AS(p.add("v", std::span(other), std::span(other)),
                       doctest::Contains("its gradient is its weight's memory"), argument_error);
  CHECK(p.size() == 1);
  CHECK_FALSE(p.contains("v"));
}

}  // namespace optim_doubles
