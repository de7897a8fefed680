// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Minimization over all data: line search, L-BFGS, and ranks that hold parts of the data or of the parameters.
#include <dovetail/optim/second_order/lbfgs.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/sync/summed.hpp>

#include <doctest/doctest.h>

#include "functions.hpp"

namespace optim_minimize {

using namespace dovetail;

namespace {

static_assert(optim::descent_method<optim::lbfgs> && optim::descent_method<optim::steepest_descent>);

arena at(std::vector<float> const& start) {
  arena a({{"x", {static_cast<std::int64_t>(start.size())}}});
  std::copy(start.begin(), start.end(), a.weights().begin());
  return a;
}
std::vector<float> weights_of(arena& a) { return {a.weights().begin(), a.weights().end()}; }

}  // namespace

TEST_CASE("L-BFGS finds the known minima of classical functions") {
  for (auto const& known : test::classical()) {
    CAPTURE(known.name);
    auto a = at(known.start);
    test::as_objective f{known.f};
    auto const r = optim::minimize(f, a.parameters(), optim::lbfgs{}, {.gradient_norm = 1e-8});
    CHECK(r.loss - known.minimum < 1e-6);
    CHECK(r.loss - known.minimum > -1e-9);
    CHECK(r.steps <= known.most);
    CHECK(r.evaluations <= 2 * known.most);
    CHECK(r.evaluations == f.evaluations);
    CHECK(f(a.parameters()) == r.loss);  // the weights are those of the loss
  }
}

TEST_CASE("a loss multiplied by 1e-30 to 1e30 is minimized by the same steps") {
  for (auto const& known : test::classical()) {
    auto const run = [&](double scale, auto const& method) {
      auto a = at(known.start);
      test::as_objective f{test::times(scale, known.f)};
      auto const r = optim::minimize(f, a.parameters(), method, {.steps = 60});
      CHECK(f(a.parameters()) == doctest::Approx(r.loss).epsilon(1e-6));
      return std::pair{r, weights_of(a)};
    };
    auto const same = [&](auto const& method) {
      CAPTURE(known.name);
      auto const [one, weights] = run(1, method);
      for (double scale : {0x1p-100, 0x1p-50, 0x1p40, 0x1p90}) {  // exact: the same bits
        CAPTURE(scale);
        auto const [r, w] = run(scale, method);
        CHECK(r.loss == scale * one.loss);
        CHECK(r.gradient_norm == scale * one.gradient_norm);
        CHECK(r.evaluations == one.evaluations);
        CHECK(r.why == one.why);
        CHECK(w == weights);
      }
    };
    same(optim::lbfgs{});
    same(optim::steepest_descent{});
    for (double scale : {1e-30, 1e30}) {
      CAPTURE(scale);
      auto const [r, w] = run(scale, optim::lbfgs{.history = 5});
      CHECK(r.steps > 3);
      CHECK(r.loss / scale - known.minimum < (known.most > 160 ? 100 : known.most == 160 ? 20 : 1e-3));
    }
  }
}

TEST_CASE("with a full history and an exact search, a quadratic of n variables takes about n steps") {
  for (std::size_t n : {2u, 5u, 12u, 20u}) {
    CAPTURE(n);
    auto a = at(std::vector<float>(n, -2.0f));
    test::as_objective f{test::quadratic(test::spread(n, 50))};
    auto const r = optim::minimize(f, a.parameters(), optim::lbfgs{.history = 40, .line_search = {.curvature = 1e-3}},
                                   {.gradient_norm = 1e-4, .change = 0});
    CHECK(r.why == optim::stopped::gradient_norm);
    CHECK(r.steps <= static_cast<std::int64_t>(n) + 3);
  }
}

TEST_CASE("the direction is that of the dense inverse BFGS matrix of the same pairs") {
  constexpr std::size_t n = 9, m = 4;
  for (std::size_t pushed : {1u, 3u, 4u, 7u}) {
    CAPTURE(pushed);
    optim::detail::curvature_pairs<float> pairs(n, m);
    std::vector<std::vector<double>> s, y;
    for (std::size_t k = 0; k < pushed; ++k) {
      std::vector<float> sk(n), yk(n);
      random_stream const random{3, static_cast<std::uint32_t>(k)};
      for (std::size_t i = 0; i < n; ++i) {
        sk[i] = 2 * random.uniform(i) - 1;
        yk[i] = static_cast<float>(1 + i) * sk[i] + 0.3f * (2 * random.uniform(n + i) - 1);
      }
      pairs.push(sk, yk, {});
      s.emplace_back(sk.begin(), sk.end());
      y.emplace_back(yk.begin(), yk.end());
    }
    auto const dot = [](auto const& a, auto const& b) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      return sum;
    };
    // H <- (I - r s y') H (I - r y s') + r s s' from the oldest of the last m pairs on.
    std::vector<std::vector<double>> h(n, std::vector<double>(n));
    double const gamma = dot(s.back(), y.back()) / dot(y.back(), y.back());
    for (std::size_t i = 0; i < n; ++i) h[i][i] = gamma;
    for (std::size_t k = pushed > m ? pushed - m : 0; k < pushed; ++k) {
      double const r = 1 / dot(s[k], y[k]);
      auto const project = [&](bool left) {
        auto const old = h;
        for (std::size_t i = 0; i < n; ++i)
          for (std::size_t j = 0; j < n; ++j) {
            double sum = 0;
            for (std::size_t l = 0; l < n; ++l)
              sum += left ? ((i == l) - r * s[k][i] * y[k][l]) * old[l][j]
                          : old[i][l] * ((l == j) - r * y[k][l] * s[k][j]);
            h[i][j] = sum;
          }
      };
      project(true);
      project(false);
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < n; ++j) h[i][j] += r * s[k][i] * s[k][j];
    }
    std::vector<float> g(n), d(n);
    for (std::size_t i = 0; i < n; ++i) g[i] = 2 * random_stream{8}.uniform(i) - 1;
    pairs.apply(g, gamma, -1, d, {});
    for (std::size_t i = 0; i < n; ++i) {
      double const expected = -dot(h[i], g);
      CHECK(static_cast<double>(d[i]) == doctest::Approx(expected).epsilon(1e-5));
    }
  }
}

TEST_CASE("the line search meets both conditions, shortens steps into the void, and says when it fails") {
  optim::strong_wolfe const search{.curvature = 0.1};
  auto const conditions = [&](auto const& f, optim::line_point start, double first) {
    auto const r = search.search(f, start, first);
    CHECK(r.wolfe);
    CHECK(r.at.value <= start.value + 1e-4 * r.at.step * start.slope);
    CHECK(std::abs(r.at.slope) <= 0.1 * std::abs(start.slope));
    return r;
  };
  auto const bowl = [](double t) { return optim::line_point{t, (t - 3) * (t - 3), 2 * (t - 3)}; };
  for (double first : {1e-6, 0.1, 1.0, 3.0, 100.0, 1e6}) conditions(bowl, bowl(0), first);
  CHECK(conditions(bowl, bowl(0), 1.0).at.step == doctest::Approx(3));
  auto const waves = [](double t) {
    return optim::line_point{t, -t / (t * t + 2) + 0.01 * std::sin(5 * t),
                             (t * t - 2) / ((t * t + 2) * (t * t + 2)) + 0.05 * std::cos(5 * t)};
  };
  for (double first : {1e-3, 0.1, 1.0, 10.0, 1e3}) conditions(waves, waves(0), first);
  auto const walled = [](double t) {  // undefined beyond 2
    double const nan = std::numeric_limits<double>::quiet_NaN();
    return t < 2 ? optim::line_point{t, -std::sqrt(t + 1) - std::log(2 - t) * 0.1,
                                     -0.5 / std::sqrt(t + 1) + 0.1 / (2 - t)}
                 : optim::line_point{t, t < 5 ? -100 : nan, nan};
  };
  for (double first : {0.5, 2.0, 10.0, 1e4}) conditions(walled, walled(0), first);
  auto const liar = [](double t) { return optim::line_point{t, t, -1}; };  // rises where its slope says it falls
  auto const lost = search.search(liar, liar(0), 1);
  CHECK(lost.at.step == 0);
  CHECK(!lost.wolfe);
  CHECK(lost.trials <= search.trials);
  // A longest step that is nearly reached: no step goes beyond it.
  auto const near = [](double t) { return optim::line_point{t, (t - 10.01) * (t - 10.01), 2 * (t - 10.01)}; };
  double farthest = 0;
  auto const seen = [&](double t) { return farthest = std::max(farthest, t), near(t); };
  CHECK(optim::strong_wolfe{.curvature = 2e-4, .longest = 10.05}.search(seen, near(0), 1).wolfe);
  CHECK(farthest == 10.05);
}

TEST_CASE("a step that meets NaN is shortened, and what was reached is kept when the objective fails") {
  // log-barrier: NaN outside of (0, 1).
  test::function const barrier = [](auto const& x, auto& g) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum += 3 * x[i] - std::log(x[i]) - std::log(1 - x[i]);
      g[i] = 3 - 1 / x[i] + 1 / (1 - x[i]);
    }
    return sum;
  };
  auto a = at({0.999f, 0.001f, 0.5f});
  auto const r = optim::minimize(test::as_objective{barrier}, a.parameters(), optim::lbfgs{}, {.gradient_norm = 1e-8});
  CHECK(r.why == optim::stopped::gradient_norm);
  double const best = (5 - std::sqrt(13.0)) / 6;
  for (float w : a.weights()) CHECK(static_cast<double>(w) == doctest::Approx(best).epsilon(1e-4));

  // The objective throws in its seventh evaluation: the weights are those of the last accepted point.
  auto b = at({-1.2f, 1});
  std::vector<double> losses;
  test::as_objective f{test::rosenbrock};
  auto const failing = [&](parameter_list& p) {
    if (losses.size() == 6) throw std::runtime_error("the data are gone");
    losses.push_back(f(p));
    return losses.back();
  };
  CHECK_THROWS_WITH(optim::minimize(failing, b.parameters(), optim::lbfgs{}), "the data are gone");
  double const kept = f(b.parameters());
  CHECK(kept < losses.front());
  CHECK(std::find(losses.begin(), losses.end(), kept) != losses.end());
}

TEST_CASE("what cannot be minimized is refused, and a failed search says so and leaves the weights") {
  parameter_list none;
  auto const zero = [](parameter_list&) { return 0.0; };
  CHECK_THROWS_WITH_AS(optim::minimize(zero, none, optim::lbfgs{}), doctest::Contains("no parameters"), argument_error);
  arena one({{"w", {1}}});
  CHECK_THROWS_WITH_AS(optim::minimize(zero, one.parameters(), optim::lbfgs{}, {}, {.gradient_factor = 0.5f}),
                       doctest::Contains("gradient_factor is 0.5"), argument_error);
  parameter_list elsewhere;
  elsewhere.add_opaque("w", {4});
  CHECK_THROWS_WITH_AS(optim::minimize(zero, elsewhere, optim::lbfgs{}), doctest::Contains("are elsewhere"),
                       argument_error);
  // An objective that adds tensors to its list, where a minimization has vectors of the list's size.
  std::vector<float> more(1000, 7.0f), slopes(1000);
  auto const growing = [&](parameter_list& p) {
    if (!p.contains("more")) p.add("more", more, slopes);
    p[0].gradient[0] = 1;
    return 0.0;
  };
  one.weights()[0] = 3;
  CHECK_THROWS_WITH_AS(optim::minimize(growing, one.parameters(), optim::lbfgs{}),
                       doctest::Contains("has 1001 weights, and had 1"), argument_error);
  CHECK(one.weights()[0] == 3);
  CHECK(more[999] == 7);
  comm::self alone;
  auto summed = sync::summed(zero, alone);
  CHECK_THROWS_WITH_AS(summed(elsewhere), doctest::Contains("but elsewhere"), argument_error);
  auto a = at({1, 2});
  float const nan = std::numeric_limits<float>::quiet_NaN();
  auto const bad_loss = [&](parameter_list&) { return static_cast<double>(nan); };
  auto const bad_gradient = [&](parameter_list& p) { return p[0].gradient[1] = nan, 1.0; };
  CHECK_THROWS_WITH_AS(optim::minimize(bad_loss, a.parameters(), optim::lbfgs{}), doctest::Contains("first weights"),
                       numeric_error);
  CHECK_THROWS_AS(optim::minimize(bad_gradient, a.parameters(), optim::lbfgs{}), numeric_error);
  CHECK_THROWS_AS(optim::minimize(zero, a.parameters(), optim::lbfgs{.history = 0}), argument_error);
  CHECK_THROWS_AS(optim::minimize(zero, a.parameters(), optim::lbfgs{.line_search = {.curvature = 1}}), argument_error);
  CHECK_THROWS_AS(optim::minimize(zero, a.parameters(), optim::steepest_descent{.line_search = {.longest = 0}}),
                  argument_error);
  CHECK_THROWS_AS(optim::minimize(zero, a.parameters(), optim::lbfgs{}, {.change = static_cast<double>(nan)}),
                  argument_error);
  // Histories whose bytes, counted in 64 bits, come out as few or none.
  for (int bits : {29, 31, 60, 61, 62, 63})
    CHECK_THROWS_WITH_AS(optim::minimize(zero, a.parameters(), optim::lbfgs{.history = std::size_t{1} << bits}),
                         doctest::Contains("more than memory can hold"), argument_error);
  CHECK(weights_of(a) == std::vector<float>{1, 2});
  auto const wrong_sign = [](parameter_list& p) {
    p[0].gradient[0] = -2 * p[0].weight[0];
    p[0].gradient[1] = 0;
    return static_cast<double>(p[0].weight[0]) * static_cast<double>(p[0].weight[0]);
  };
  CHECK(optim::minimize(wrong_sign, a.parameters(), optim::lbfgs{}).why == optim::stopped::line_search);
  CHECK(weights_of(a) == std::vector<float>{1, 2});
  // Limits.
  auto b = at({-1.2f, 1});
  test::as_objective f{test::rosenbrock};
  CHECK(optim::minimize(f, b.parameters(), optim::lbfgs{}, {.steps = 3}).steps == 3);
  CHECK(optim::minimize(f, b.parameters(), optim::lbfgs{}, {.evaluations = 5}).why == optim::stopped::evaluations);
  CHECK(optim::minimize(f, b.parameters(), optim::steepest_descent{}, {.change = 0.5}).why == optim::stopped::change);
}

namespace {

/// Logistic regression over samples [part): mean of all losses and a little decay, which rank 0 adds.
struct logistic {
  range part;
  bool decays;
  static constexpr std::size_t samples = 40, features = 7;

  double operator()(parameter_list& p) const {
    auto const w = p[0].weight, bias = p[1].weight;
    std::vector<double> g(features + 1);
    double loss = 0;
    for (std::size_t s = part.begin; s < part.end; ++s) {
      random_stream const random{21, static_cast<std::uint32_t>(s)};
      double z = static_cast<double>(bias[0]), target = random.uniform(99) < 0.5f ? -1 : 1;
      auto const x = [&](std::size_t i) {
        return static_cast<double>(random.uniform(i)) + (i == 2 ? 0.3 * target : 0);
      };
      for (std::size_t i = 0; i < features; ++i) z += static_cast<double>(w[i]) * x(i);
      loss += std::log1p(std::exp(-target * z)) / samples;
      double const d = -target / (1 + std::exp(target * z)) / samples;
      for (std::size_t i = 0; i < features; ++i) g[i] += d * x(i);
      g[features] += d;
    }
    for (std::size_t i = 0; i < features; ++i) {
      double const v = static_cast<double>(w[i]);
      if (decays) loss += 0.5e-3 * v * v, g[i] += 1e-3 * v;
      p[0].gradient[i] = static_cast<float>(g[i]);
    }
    p[1].gradient[0] = static_cast<float>(g[features]);
    return loss;
  }
};
std::vector<arena::tensor> const logistic_tensors{{"w", {7}}, {"b", {1}}};

}  // namespace

TEST_CASE("ranks that hold parts of the data get the same weights, those of one rank with all of it") {
  arena whole(logistic_tensors);
  auto const alone =
      optim::minimize(logistic{{0, 40}, true}, whole.parameters(), optim::lbfgs{}, {.gradient_norm = 1e-6});
  CHECK(alone.why == optim::stopped::gradient_norm);
  for (int ranks = 1; ranks <= 4; ++ranks) {
    CAPTURE(ranks);
    std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
    comm::threads(ranks).run([&](auto& c) {
      arena a(logistic_tensors);
      auto f = sync::summed(logistic{shard(40, c.size(), c.rank()), c.rank() == 0}, c);
      auto const r = optim::minimize(f, a.parameters(), optim::lbfgs{}, {.gradient_norm = 1e-6});
      CHECK(r.gradient_norm < 2e-6);
      CHECK(r.loss == doctest::Approx(alone.loss).epsilon(1e-9));
      weights[static_cast<std::size_t>(c.rank())] = weights_of(a);
    });
    for (auto const& w : weights) {
      CHECK(w == weights[0]);
      for (std::size_t i = 0; i < w.size(); ++i)
        CHECK(static_cast<double>(w[i]) == doctest::Approx(static_cast<double>(whole.weights()[i])).epsilon(2e-3));
    }
  }
}

TEST_CASE("ranks that hold parts of the parameters go the way of one that holds all") {
  // Each variable by itself, so that a rank can work out its part; the loss is the sum over ranks.
  auto const c = test::spread(24, 300);
  auto whole = at(std::vector<float>(24, -2.0f));
  auto const alone = optim::minimize(test::as_objective{test::quadratic(c)}, whole.parameters(),
                                     optim::lbfgs{.history = 5}, {.gradient_norm = 1e-9});
  CHECK(alone.loss < 1e-8);
  for (int ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    comm::threads(ranks).run([&](auto& comm) {
      auto const part = shard(24, comm.size(), comm.rank());
      auto a = at(std::vector<float>(part.size(), -2.0f));
      test::as_objective own{test::quadratic(
          {c.begin() + static_cast<std::ptrdiff_t>(part.begin), c.begin() + static_cast<std::ptrdiff_t>(part.end)})};
      auto const add = [&](std::span<double> sums) { comm.all_reduce(sums, comm::reduction::sum); };
      auto const f = [&](parameter_list& p) {
        double loss = own(p);
        add({&loss, 1});
        return loss;
      };
      auto const r = optim::minimize(f, a.parameters(), optim::lbfgs{.history = 5}, {.gradient_norm = 1e-9},
                                     {.all_reduce_sums = add});
      CHECK(r.steps <= alone.steps + 3);
      CHECK(r.loss < 1e-8);
      for (float w : a.weights()) CHECK(w == doctest::Approx(1).epsilon(1e-3));
    });
  }
}

TEST_CASE("the same bits on any number of threads, and wherever tensors lie") {
  std::size_t const n = 300'001;
  auto const run = [&](int threads, bool apart) {
    std::vector<arena> memory;
    memory.emplace_back(std::vector<arena::tensor>{{"a", {100}}});
    memory.emplace_back(std::vector<arena::tensor>{{"b", {static_cast<std::int64_t>(n) - 100}}});
    arena together({{"a", {100}}, {"b", {static_cast<std::int64_t>(n) - 100}}});
    parameter_list list;
    for (auto& m : memory) list.add(m.parameters()[0].name, m.weights(), m.gradients());
    auto& p = apart ? list : together.parameters();
    test::as_objective f{[](auto const& x, auto& g) {
      double sum = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const c = 1 + static_cast<double>(i % 17), e = x[i] - 0.5;
        g[i] = (c * e + e * e * e) / 1e5;
        sum += (0.5 * c * e * e + 0.25 * e * e * e * e) / 1e5;
      }
      return sum;
    }};
    optim::minimize(f, p, optim::lbfgs{.history = 3}, {.steps = 6}, {.threads = threads});
    std::vector<float> all;
    for (auto const& x : p) all.insert(all.end(), x.weight.begin(), x.weight.end());
    return all;
  };
  auto const one = run(1, false);
  CHECK(one[5] != 0);
  CHECK(run(3, false) == one);
  CHECK(run(2, true) == one);
}

}  // namespace optim_minimize
