// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "functions.hpp"

// Sums of squares of Moré, Garbow & Hillstrom (Testing unconstrained optimization software, ACM TOMS 1981) and a
// logistic regression, with gradients by dual numbers in double precision.
namespace test {

/// A value and its derivatives in all variables.
struct dual {
  double value = 0;
  std::array<double, 12> slope{};

  dual(double v = 0) : value(v) {}
  template <class F>
  dual each(double v, F const& f) const {
    dual r(v);
    for (std::size_t i = 0; i < slope.size(); ++i) r.slope[i] = f(i);
    return r;
  }
  friend dual operator+(dual const& a, dual const& b) {
    return a.each(a.value + b.value, [&](std::size_t i) { return a.slope[i] + b.slope[i]; });
  }
  friend dual operator-(dual const& a, dual const& b) {
    return a.each(a.value - b.value, [&](std::size_t i) { return a.slope[i] - b.slope[i]; });
  }
  friend dual operator*(dual const& a, dual const& b) {
    return a.each(a.value * b.value, [&](std::size_t i) { return a.slope[i] * b.value + a.value * b.slope[i]; });
  }
  friend dual operator/(dual const& a, dual const& b) {
    double const q = a.value / b.value;
    return a.each(q, [&](std::size_t i) { return (a.slope[i] - q * b.slope[i]) / b.value; });
  }
  /// f(this), where f has the value v and the derivative d.
  dual with(double v, double d) const {
    return each(v, [&](std::size_t i) { return d * slope[i]; });
  }
};
inline dual exp(dual const& x) { return x.with(std::exp(x.value), std::exp(x.value)); }
inline dual sqrt(dual const& x) { return x.with(std::sqrt(x.value), 0.5 / std::sqrt(x.value)); }
inline dual atan(dual const& x) { return x.with(std::atan(x.value), 1 / (1 + x.value * x.value)); }
/// log(1 + e^x)
inline dual softplus(dual const& x) { return x.with(std::log1p(std::exp(x.value)), 1 / (1 + std::exp(-x.value))); }

using duals = std::vector<dual>;

/// `f` of duals, of up to 12 variables, as a function.
template <class F>
function differentiated(F const& f) {
  return [f](std::vector<double> const& x, std::vector<double>& gradient) {
    duals v(x.begin(), x.end());
    for (std::size_t i = 0; i < v.size(); ++i) v[i].slope[i] = 1;
    dual const r = f(v);
    for (std::size_t i = 0; i < x.size(); ++i) gradient[i] = r.slope[i];
    return r.value;
  };
}
/// The sum of the squares of what `residuals` returns.
template <class F>
function sum_of_squares(F const& residuals) {
  return differentiated([residuals](duals const& x) {
    dual sum;
    for (auto const& r : residuals(x)) sum = sum + r * r;
    return sum;
  });
}

/// A problem with the evaluations that a peer took.
struct measured_problem {
  std::string name;
  std::vector<float> start;
  double minimum;
  double reach;  ///< how near to the minimum, as a share of the first loss's distance
  int peer;      ///< evaluations of functions and gradients, and products with the Hessian
  function f;
};

inline duals watson(duals const& x) {
  duals r;
  for (int i = 1; i < 30; ++i) {
    double const t = i / 29.0;
    dual slope, value;
    double power = 1;
    for (std::size_t j = 0; j < x.size(); ++j, power *= t) {
      value = value + power * x[j];
      if (j + 1 < x.size()) slope = slope + static_cast<double>(j + 1) * power * x[j + 1];
    }
    r.push_back(slope - value * value - 1);
  }
  r.push_back(x[0]);
  r.push_back(x[1] - x[0] * x[0] - 1);
  return r;
}

/// Logistic regression: 60 samples of 10 features, targets of a noisy hyperplane, a decay of 1e-2.
inline dual logistic_regression(duals const& w) {
  auto const uniform = [](std::uint32_t k) {
    std::uint32_t h = k * 2654435761u + 12345u;
    h = (h ^ (h >> 15)) * 2246822519u;
    return static_cast<double>(h >> 8) * 0x1p-24;
  };
  dual loss;
  for (std::uint32_t s = 0; s < 60; ++s) {
    double side = 2 * uniform(s * 97 + 50) - 1;
    dual z;
    for (std::uint32_t i = 0; i < 10; ++i) {
      double const x = 2 * uniform(s * 97 + i) - 1;
      side += 0.1 * (i + 1) * x;
      z = z + x * w[i];
    }
    loss = loss + (1 / 60.0) * softplus(side > 0 ? 0.0 - z : z);
  }
  for (auto const& x : w) loss = loss + 0.5e-2 * x * x;
  return loss;
}

/// `peer`: nfev + njev + nhev of scipy 1.17.1's minimize(method="Newton-CG"), given exact products with the Hessian
/// (hessp), in double precision, up to the first iterate that is within `reach`: 1e-8, or for Watson's function of 9
/// variables 1e-4, beyond which scipy ends.
inline std::vector<measured_problem> measured_problems() {
  return {
      {"Powell", {3, -1, 0, 1}, 0, 1e-8, 83, sum_of_squares([](duals const& x) {
         dual const a = x[1] - 2 * x[2], b = x[0] - x[3];
         return duals{x[0] + 10 * x[1], std::sqrt(5.0) * (x[2] - x[3]), a * a, std::sqrt(10.0) * b * b};
       })},
      {"Beale", {1, 1}, 0, 1e-8, 45, sum_of_squares([](duals const& x) {
         dual const y = x[1], y2 = y * y;
         return duals{1.5 - x[0] * (1 - y), 2.25 - x[0] * (1 - y2), 2.625 - x[0] * (1 - y2 * y)};
       })},
      {"helical valley", {-1, 0, 0}, 0, 1e-8, 85, sum_of_squares([](duals const& x) {
         dual const turn = atan(x[1] / x[0]) / (2 * std::numbers::pi) + (x[0].value < 0 ? 0.5 : 0);
         return duals{10 * (x[2] - 10 * turn), 10 * (sqrt(x[0] * x[0] + x[1] * x[1]) - 1), x[2]};
       })},
      {"box", {0, 10, 20}, 0, 1e-8, 70, sum_of_squares([](duals const& x) {
         duals r;
         for (int i = 1; i <= 10; ++i) {
           double const t = 0.1 * i;
           r.push_back(exp(-t * x[0]) - exp(-t * x[1]) - x[2] * (std::exp(-t) - std::exp(-10 * t)));
         }
         return r;
       })},
      {"Watson 6", std::vector<float>(6), 2.28767005e-3, 1e-8, 114, sum_of_squares(watson)},
      {"Watson 9", std::vector<float>(9), 1.399760e-6, 1e-4, 71, sum_of_squares(watson)},
      {"Watson 12", std::vector<float>(12), 4.72238e-10, 1e-8, 129, sum_of_squares(watson)},
      {"Broyden tridiagonal", std::vector<float>(10, -1), 0, 1e-8, 37, sum_of_squares([](duals const& x) {
         duals r;
         for (std::size_t i = 0; i < x.size(); ++i)
           r.push_back((3 - 2 * x[i]) * x[i] - (i ? x[i - 1] : 0) - (i + 1 < x.size() ? 2 * x[i + 1] : 0) + 1);
         return r;
       })},
      {"Broyden banded", std::vector<float>(10, -1), 0, 1e-8, 28, sum_of_squares([](duals const& x) {
         duals r;
         for (std::size_t i = 0; i < x.size(); ++i) {
           dual sum;
           for (std::size_t j = i < 5 ? 0 : i - 5; j < std::min(x.size(), i + 2); ++j)
             if (j != i) sum = sum + x[j] * (1 + x[j]);
           r.push_back(x[i] * (2 + 5 * x[i] * x[i]) + 1 - sum);
         }
         return r;
       })},
      {"almost-linear Brown", std::vector<float>(10, 0.5f), 0, 1e-8, 16, sum_of_squares([](duals const& x) {
         dual sum, product = 1;
         for (auto const& v : x) sum = sum + v, product = product * v;
         duals r;
         for (std::size_t i = 0; i + 1 < x.size(); ++i) r.push_back(x[i] + sum - static_cast<double>(x.size() + 1));
         r.push_back(product - 1);
         return r;
       })},
      {"logistic regression", std::vector<float>(10), 0.36523097857, 1e-8, 24, differentiated(logistic_regression)},
  };
}

}  // namespace test
