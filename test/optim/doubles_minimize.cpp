// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Methods that see all parameters as one vector, on parameters of doubles: minima to the last digits.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm/threads.hpp>
#include <dovetail/optim/second_order.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/summed.hpp>

#include <doctest/doctest.h>

#include "doubles.hpp"
#include "functions.hpp"

namespace optim_doubles_minimize {

namespace {

using namespace dovetail;

/// A function, where its minimum is, and what of a solution is compared: weights, or the value where the minimum is
/// flat in some direction.
struct problem {
  std::string name;
  std::vector<double> start, minimum;
  test::function f;
  bool flat = false;
};

/// Moré, Garbow & Hillstrom, Testing Unconstrained Optimization Software, ACM TOMS 1981, problems 13 and 14.
double powell(std::vector<double> const& x, std::vector<double>& g) {
  double const a = x[0] + 10 * x[1], b = x[2] - x[3], c = x[1] - 2 * x[2], d = x[0] - x[3];
  g[0] = 2 * a + 40 * d * d * d;
  g[1] = 20 * a + 4 * c * c * c;
  g[2] = 10 * b - 8 * c * c * c;
  g[3] = -10 * b - 40 * d * d * d;
  return a * a + 5 * b * b + c * c * c * c + 10 * d * d * d * d;
}
double wood(std::vector<double> const& x, std::vector<double>& g) {
  double const a = x[1] - x[0] * x[0], b = 1 - x[0], c = x[3] - x[2] * x[2], d = 1 - x[2], e = x[1] + x[3] - 2,
               h = x[1] - x[3];
  g[0] = -400 * x[0] * a - 2 * b;
  g[1] = 200 * a + 20 * e + 0.2 * h;
  g[2] = -360 * x[2] * c - 2 * d;
  g[3] = 180 * c + 20 * e - 0.2 * h;
  return 100 * a * a + b * b + 90 * c * c + d * d + 10 * e * e + 0.1 * h * h;
}

/// Regularized logistic regression of 200 drawn samples, of those that rank `rank` of `ranks` has: its share of the
/// mean.
test::function logistic(int rank = 0, int ranks = 1) {
  return [rank, ranks](std::vector<double> const& w, std::vector<double>& g) {
    constexpr std::size_t n = 200, d = 7;
    constexpr double l2 = 1e-3;
    double sum = 0, squares = 0;
    std::fill(g.begin(), g.end(), 0.0);
    for (std::size_t r = 0; r < n; ++r) {
      if (static_cast<int>(r) % ranks != rank) continue;
      double all = 0, z = 0;
      for (std::size_t c = 0; c < d; ++c) {
        all += doubles::value(1, d * r + c);
        z += doubles::value(1, d * r + c) * w[c];
      }
      double const y = all + doubles::value(2, r) > 0 ? 1 : -1;
      sum += std::max(-y * z, 0.0) + std::log1p(std::exp(-std::abs(z)));
      double const slope = -y / (1 + std::exp(y * z)) / n;
      for (std::size_t c = 0; c < d; ++c) g[c] += slope * doubles::value(1, d * r + c);
    }
    for (std::size_t c = 0; c < d; ++c) {
      g[c] += l2 * w[c] / ranks;
      squares += w[c] * w[c];
    }
    return sum / n + 0.5 * l2 * squares / ranks;
  };
}
struct found_by_scipy {
  double loss = 0;
  std::vector<double> weights{};
};
found_by_scipy scipy() {
  std::ifstream in(DOVETAIL_MINIMUM);
  REQUIRE(in.is_open());
  std::string comment;
  std::getline(in, comment);
  found_by_scipy m;
  in >> m.loss;
  for (double x; in >> x;) m.weights.push_back(x);
  REQUIRE(m.weights.size() == 7);
  return m;
}

std::vector<problem> problems() {
  return {{"Rosenbrock", {-1.2, 1}, {1, 1}, test::rosenbrock},
          {"Rosenbrock, 20 variables", std::vector<double>(20, -1.0), std::vector<double>(20, 1.0), test::rosenbrock},
          {"Powell's singular function", {3, -1, 0, 1}, {0, 0, 0, 0}, powell, true},
          {"Wood", {-3, -1, -3, -1}, {1, 1, 1, 1}, wood},
          {"logistic regression", std::vector<double>(7), scipy().weights, logistic()}};
}

template <class T>
basic_arena<T> begin(problem const& p) {
  basic_arena<T> a({{"x", {static_cast<std::int64_t>(p.start.size())}}});
  for (std::size_t i = 0; i < p.start.size(); ++i) a.weights()[i] = static_cast<T>(p.start[i]);
  return a;
}
template <class T>
double off(problem const& p, std::span<T const> w) {
  double most = 0;
  std::vector<double> x(w.begin(), w.end()), g(w.size());
  if (p.flat) return p.f(x, g);
  for (std::size_t i = 0; i < w.size(); ++i) most = std::max(most, std::abs(x[i] - p.minimum[i]));
  return most;
}
constexpr optim::stop_when to_the_end{.gradient_norm = 1e-15, .change = 0, .steps = 5000, .evaluations = 50000};

}  // namespace

TEST_CASE("L-BFGS finds minima to 1e-12 in doubles; the same program in floats finds them to what floats are") {
  for (auto const& p : problems()) {
    CAPTURE(p.name);
    auto const minimum = [&p]<class T>(T) {
      auto a = begin<T>(p);
      test::as_objective f{p.f};
      optim::minimize(f, a.parameters(), optim::lbfgs{}, to_the_end);
      return off<T>(p, a.weights());
    };
    CHECK(minimum(double{}) <= 1e-12);
    CHECK(minimum(float{}) <= 2e-3);
  }
}

TEST_CASE("Hessian-free finds minima to 1e-12 in doubles, with products of differences of gradients") {
  for (auto const& p : problems()) {
    CAPTURE(p.name);
    auto a = begin<double>(p);
    test::as_objective f{p.f};
    optim::hessian_product product(f, a.parameters());
    optim::hessian_free const hf{.damping = 1e-3};
    auto s = hf.init(a.parameters());
    for (int t = 0; t < 400 && off<double>(p, a.weights()) > 1e-13; ++t) hf.step(f, product, a.parameters(), s);
    CHECK(off<double>(p, a.weights()) <= 1e-12);
  }
}

TEST_CASE("the loss at the minimum of a logistic regression is SciPy's") {
  auto const known = scipy();
  basic_arena<double> a({{"w", {7}}});
  test::as_objective f{logistic()};
  auto const done = optim::minimize(f, a.parameters(), optim::lbfgs{}, to_the_end);
  CHECK(std::abs(done.loss - known.loss) <= 1e-15);
  for (std::size_t i = 0; i < 7; ++i) CHECK(std::abs(a.weights()[i] - known.weights[i]) <= 1e-12);
}

TEST_CASE("ranks with parts of the data find it too, in doubles, with the same bits") {
  auto const known = scipy();
  std::vector<std::vector<double>> of(3);
  comm::threads{3}.run([&](auto& comm) {
    basic_arena<double> a({{"w", {7}}});
    if (comm.rank() == 0) std::fill(a.weights().begin(), a.weights().end(), 1.0 / 3);
    sync::make_equal(a.parameters(), comm);
    CHECK(a.weights()[6] == 1.0 / 3);
    auto f = sync::summed(test::as_objective{logistic(comm.rank(), 3)}, comm);
    optim::minimize(f, a.parameters(), optim::lbfgs{}, to_the_end);
    of[static_cast<std::size_t>(comm.rank())] = {a.weights().begin(), a.weights().end()};
  });
  CHECK(of[0] == of[1]);
  CHECK(of[0] == of[2]);
  for (std::size_t i = 0; i < 7; ++i) CHECK(std::abs(of[0][i] - known.weights[i]) <= 1e-12);
  CHECK_THROWS_WITH_AS(comm::threads{2}.run([&](auto& comm) {
    basic_arena<double> d({{"w", {7}}});
    arena s({{"w", {7}}});
    if (comm.rank() == 0)
      sync::require_same_list(d.parameters(), comm);
    else
      sync::require_same_list(s.parameters(), comm);
  }),
                       doctest::Contains("of doubles"), argument_error);
}

TEST_CASE("products and diagonals of doubles") {
  std::size_t const n = 12;
  basic_arena<double> a({{"w", {static_cast<std::int64_t>(n)}}});
  test::as_objective f{test::quadratic(test::spread(n, 1e4))};
  optim::hessian_product product(f, a.parameters());
  std::vector<double> v(n), out(n), diagonal(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = doubles::value(3, i);
  auto const curvature = test::spread(n, 1e4);
  product(v, out);
  for (std::size_t i = 0; i < n; ++i) CHECK(out[i] == doctest::Approx(curvature[i] * v[i]).epsilon(1e-8));
  optim::hutchinson_diagonal(product, random_stream{1, 2}, std::span(diagonal), 2);
  for (std::size_t i = 0; i < n; ++i) CHECK(diagonal[i] == doctest::Approx(curvature[i]).epsilon(1e-8));
  std::vector<double> x(n);
  auto const exact = [&](std::span<double const> p, std::span<double> ap) {
    for (std::size_t i = 0; i < n; ++i) ap[i] = curvature[i] * p[i];
  };
  auto const solved = optim::conjugate_gradient{.progress = 0, .residual = 1e-13}.solve(exact, v, x);
  CHECK(solved.converged);
  for (std::size_t i = 0; i < n; ++i) CHECK(x[i] == doctest::Approx(v[i] / curvature[i]).epsilon(1e-10));
  a.gradients()[4] = 1.0 / 3;
  optim::bartlett_diagonal(a.parameters(), 9, diagonal);
  CHECK(diagonal[4] == doctest::Approx(1).epsilon(1e-15));
}

TEST_CASE("doubles whose squares vanish or overflow are minimized by the same steps as others") {
  auto const rosenbrock = problems()[0];
  auto const run = [&](double scale, auto const& minimize) {
    auto a = begin<double>(rosenbrock);
    test::as_objective f{test::times(scale, rosenbrock.f)};
    minimize(f, a.parameters());
    return off<double>(rosenbrock, a.weights());
  };
  for (double const scale : {1e-300, 1e-200, 1e-160, 1.0, 1e160, 1e200, 1e300}) {
    CAPTURE(scale);
    CHECK(run(scale, [](auto& f, auto& p) {
            auto const r = optim::minimize(f, p, optim::lbfgs{}, {.gradient_norm = 1e-10});
            CHECK(r.why == optim::stopped::gradient_norm);
            CHECK(r.steps > 20);
            CHECK(r.gradient_norm > 0);
          }) < 1e-6);
    CHECK(run(scale, [](auto& f, auto& p) {
            optim::hessian_product product(f, p);
            optim::hessian_free const hf{.damping = 1e-3};
            auto s = hf.init(p);
            for (int t = 0; t < 400; ++t) hf.step(f, product, p, s);
          }) < 1e-6);
    // A system, from a first solution that is as small or large, and a product with such a vector.
    std::vector<double> const b{2 * scale, 9 * scale};
    std::vector<double> x{scale, scale};
    auto const product = [](std::span<double const> v, std::span<double> out) { out[0] = 2 * v[0], out[1] = 3 * v[1]; };
    CHECK(optim::conjugate_gradient{.residual = 1e-12}.solve(product, b, x).converged);
    CHECK(x[0] / scale == doctest::Approx(1));
    CHECK(x[1] / scale == doctest::Approx(3));
    if (scale > 1) continue;  // a step along a vector is 1 / its length times as long as the weights
    auto a = begin<double>(rosenbrock);
    test::as_objective f{test::quadratic({2, 3})};
    optim::hessian_product differences(f, a.parameters());
    std::vector<double> const v{1e10 * scale, 0};
    if (v[0] < 1e-280) continue;  // the step would be no number
    std::vector<double> out(2);
    differences(v, out);
    CHECK(out[0] / v[0] == doctest::Approx(2));
  }
  // The loss may be far from its gradient, too.
  basic_arena<double> a({{"w", {1}}});
  auto const lifted = [](auto& p) { return p[0].gradient[0] = 1e-200, 1e150; };
  auto const r = optim::minimize(lifted, a.parameters(), optim::lbfgs{});
  CHECK(r.loss == 1e150);
  CHECK(r.gradient_norm == doctest::Approx(1e-200));
}

TEST_CASE("functions of floats only go on to work where doubles would do, too") {
  std::size_t const n = 6;
  auto const product = [](auto v, auto out) {
    std::span<float const> const from = v;
    std::span<float> const to = out;
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = 2 * from[i];
  };
  std::vector<float> b(n, 1.0f), x(n), diagonal(n);
  CHECK(optim::conjugate_gradient{}.solve(product, b, x).converged);
  optim::hutchinson_diagonal(product, random_stream{1, 2}, std::span(diagonal));
  CHECK(diagonal[2] == 2.0f);
  comm::threads{2}.run([&](auto& comm) {
    std::vector<float> out(n);
    auto const both = sync::summed(product, comm);
    auto sum = both;
    sum(std::span<float const>(b), std::span<float>(out));
    CHECK(out[0] == 4.0f);
  });
}

TEST_CASE("a minimization of doubles to the last digits ends, also where the loss is large beside what changes") {
  // The loss's last digit is 2e-13: steps go on as long as slopes tell where the minimum is.
  auto const lifted = [](auto& p) {
    double sum = 1000;
    for (std::size_t i = 0; i < p[0].size(); ++i) {
      double const x = p[0].weight[i] - 1.0 / 3;
      sum += 0.5 * x * x + 0.25 * x * x * x * x;
      p[0].gradient[i] = x + x * x * x;
    }
    return sum;
  };
  for (bool const steepest : {true, false}) {
    basic_arena<double> a({{"w", {5}}});
    auto const done = steepest ? optim::minimize(lifted, a.parameters(), optim::steepest_descent{}, to_the_end)
                               : optim::minimize(lifted, a.parameters(), optim::lbfgs{}, to_the_end);
    CHECK(done.evaluations < 1000);
    for (double const w : a.weights()) CHECK(std::abs(w - 1.0 / 3) < 1e-10);
  }
}

TEST_CASE("stochastic L-BFGS on doubles converges to their last digits") {
  std::size_t const n = 10;
  basic_arena<double> a({{"w", {static_cast<std::int64_t>(n)}}});
  auto const f = test::quadratic(test::spread(n, 100));
  optim::stochastic_lbfgs const rule{.lr = 0.3f, .interval = 10, .first_curvature = 100};
  auto s = rule.init(a.parameters());
  std::vector<double> x(n), g(n);
  for (int t = 0; t < 3000; ++t) {
    x.assign(a.weights().begin(), a.weights().end());
    f(x, g);
    std::copy(g.begin(), g.end(), a.gradients().begin());
    rule.step(a.parameters(), s);
  }
  for (double const w : a.weights()) CHECK(std::abs(w - 1) < 1e-12);
  for (auto const& t : s.tensors("")) CHECK(t.type != dtype::f32);
}

TEST_CASE("norms of doubles whose squares vanish or overflow: stochastic L-BFGS steps, a minimization goes on") {
  optim::stochastic_lbfgs const rule{.lr = 0.5f, .interval = 1};
  for (double const size : {1e-170, 1e160, 1e300}) {
    CAPTURE(size);
    basic_arena<double> a({{"w", {3}}});
    auto s = rule.init(a.parameters());
    std::fill(a.gradients().begin(), a.gradients().end(), size);
    auto const r = rule.step(a.parameters(), s);
    CHECK(!r.skipped);
    CHECK(r.gradient_norm / size == doctest::Approx(std::sqrt(3.0)));
    for (double const w : a.weights()) CHECK(w / size == doctest::Approx(-0.5));
    // Along a direction whose curvature it knows, the step is as much shorter.
    basic_arena<double> known({{"w", {1}}});
    auto memory = rule.init(known.parameters());
    auto const step = [&](double gradient) {
      double const before = known.weights()[0];
      known.gradients()[0] = gradient;
      rule.step(known.parameters(), memory);
      return known.weights()[0] - before;
    };
    known.weights()[0] = 1;
    for (int t = 0; t < 5; ++t) step(4 * known.weights()[0]);
    REQUIRE(memory.pairs() > 0);
    known.weights()[0] = 0;
    CHECK(step(size) / size == doctest::Approx(-0.5 / 4));
  }
  for (double const bad : {HUGE_VAL, std::nan("")}) {
    basic_arena<double> a({{"w", {3}}});
    auto s = rule.init(a.parameters());
    a.gradients()[1] = bad;
    CHECK(rule.step(a.parameters(), s).skipped);
  }
  // The first step leaves a gradient that is 1e170 times smaller.
  basic_arena<double> a({{"w", {2}}});
  a.weights()[0] = 1;
  auto const f = [](auto& p) {
    double const x = p[0].weight[0], y = p[0].weight[1];
    p[0].gradient[0] = x, p[0].gradient[1] = 1e-170;
    return 0.5 * x * x + 1e-170 * y;
  };
  auto const r = optim::minimize(f, a.parameters(), optim::lbfgs{}, {.gradient_norm = 0, .steps = 1});
  CHECK(r.gradient_norm == doctest::Approx(1e-170).epsilon(1e-6));
  CHECK(r.why == optim::stopped::steps);
}

}  // namespace optim_doubles_minimize
