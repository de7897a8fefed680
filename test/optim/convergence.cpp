// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that need no library reach known minima in a bounded number of steps.
#include "convergence.hpp"

namespace optim_convergence {

using namespace convergence;

namespace {
auto const& table() {
  static auto const lines = lines_of(DOVETAIL_CONVERGENCE);
  return lines;
}
}  // namespace

TEST_CASE("gradients by hand are those of finite differences") {
  for (auto const* p : all_problems) {
    CAPTURE(p->name);
    random_stream const random{31};
    std::uint64_t n = 0;
    std::vector<double> g(p->start.size()), unused(g.size());
    for (int point = 0; point < 5; ++point) {
      auto w = p->start;
      for (double& x : w) x += static_cast<double>(random.uniform(n++)) - 0.5;
      p->evaluate(w, g);
      for (std::size_t k = 0; k < w.size(); ++k) {
        CAPTURE(k);
        double const at = w[k], h = 1e-5;
        w[k] = at + h;
        double const above = p->evaluate(w, unused);
        w[k] = at - h;
        double const below = p->evaluate(w, unused);
        w[k] = at;
        CHECK(g[k] == doctest::Approx((above - below) / (2 * h)).epsilon(1e-6).scale(1));
      }
    }
  }
}

TEST_CASE("minima are where they are said to be, and Newton's method has found that of the regression") {
  std::vector<double> const tang(3, -2.903534027771177);
  for (auto const& [p, at] : {std::pair{&rosenbrock, std::vector<double>{1, 1}},
                              {&beale, {3, 0.5}},
                              {&booth, {1, 3}},
                              {&himmelblau, {3, 2}},
                              {&styblinski_tang, tang},
                              {&ackley, {0, 0}},
                              {&levy, {1, 1}},
                              {&rastrigin, {0, 0}},
                              {&logistic_regression, logistic_loss{}.solve()}}) {
    CAPTURE(p->name);
    std::vector<double> g(at.size());
    CHECK(std::abs(p->evaluate(at, g) - p->minimum) < 1e-12);
    for (double x : g) CHECK(std::abs(x) < 1e-12);
  }
}

TEST_CASE("every rule has lines in the table, or gets there without") {
  check_complete(
      table(), known::all(),
      {"lars", "larc", "lamb", "lans", "novograd", "adafactor", "sm3", "row_wise_adagrad", "percent_delta", "fromage"});
}

TEST_CASE("down a bent valley: Rosenbrock") { check(table(), known::all(), rosenbrock); }
TEST_CASE("over plains and walls: Beale") { check(table(), known::all(), beale); }
TEST_CASE("down a narrow bowl: Booth") { check(table(), known::all(), booth); }
TEST_CASE("to one of four minima: Himmelblau") { check(table(), known::all(), himmelblau); }
TEST_CASE("to the lowest of eight minima, in its basin: Styblinski and Tang") {
  check(table(), known::all(), styblinski_tang);
}
TEST_CASE("to the tip of a funnel, in its basin: Ackley") { check(table(), known::all(), ackley); }
TEST_CASE("among waves, in the basin of the lowest: Levy") { check(table(), known::all(), levy); }
TEST_CASE("among dents, in the deepest: Rastrigin") { check(table(), known::all(), rastrigin); }
TEST_CASE("to the optimum of logistic regression") { check(table(), known::all(), logistic_regression); }
TEST_CASE("a network learns a spiral") { check(table(), known::all(), network); }

}  // namespace optim_convergence
