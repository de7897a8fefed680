// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/parameters.hpp>

// Functions whose minima are known, as objectives over one tensor.
namespace test {

using dovetail::arena;
using dovetail::parameter_list;

/// Loss and gradient at x, in double precision.
using function = std::function<double(std::vector<double> const& x, std::vector<double>& gradient)>;

struct known_function {
  std::string name;
  std::vector<float> start;
  double minimum;
  int most;  ///< steps that L-BFGS with ten pairs may take
  function f;
};

/// The function as an objective: all weights of the list are its variables, in flat order.
struct as_objective {
  function f;
  int evaluations = 0;

  template <class T>
  double operator()(dovetail::basic_parameter_list<T>& p) {
    ++evaluations;
    std::vector<double> x(p.flat_size()), g(p.flat_size());
    for (std::size_t i = 0; i < p.size(); ++i)
      for (std::size_t k = 0; k < p[i].size(); ++k) x[p.offset(i) + k] = static_cast<double>(p[i].weight[k]);
    double const loss = f(x, g);
    for (std::size_t i = 0; i < p.size(); ++i)
      for (std::size_t k = 0; k < p[i].size(); ++k) p[i].gradient[k] = static_cast<T>(g[p.offset(i) + k]);
    return loss;
  }
};

/// scale times f.
inline function times(double scale, function f) {
  return [scale, f = std::move(f)](auto const& x, auto& g) {
    double const loss = f(x, g);
    for (double& v : g) v *= scale;
    return scale * loss;
  };
}
/// sum of curvature[i] (x[i] - 1)^2 / 2.
inline function quadratic(std::vector<double> curvature) {
  return [curvature = std::move(curvature)](auto const& x, auto& g) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      g[i] = curvature[i] * (x[i] - 1);
      sum += 0.5 * g[i] * (x[i] - 1);
    }
    return sum;
  };
}
/// n curvatures from 1 to `condition`, evenly in their logarithm.
inline std::vector<double> spread(std::size_t n, double condition) {
  std::vector<double> c(n);
  for (std::size_t i = 0; i < n; ++i) c[i] = std::pow(condition, static_cast<double>(i) / static_cast<double>(n - 1));
  return c;
}

inline double rosenbrock(std::vector<double> const& x, std::vector<double>& g) {
  double sum = 0;
  for (double& v : g) v = 0;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    double const a = 1 - x[i], b = x[i + 1] - x[i] * x[i];
    sum += a * a + 100 * b * b;
    g[i] += -2 * a - 400 * x[i] * b;
    g[i + 1] += 200 * b;
  }
  return sum;
}

inline std::vector<known_function> classical() {
  return {
      {"Rosenbrock", {-1.2f, 1}, 0, 50, rosenbrock},
      {"Rosenbrock, 20 variables", std::vector<float>(20, -1.0f), 0, 160, rosenbrock},
      {"Beale",
       {1, 1},
       0,
       25,
       [](auto const& v, auto& g) {
         double const x = v[0], y = v[1];
         double const a = 1.5 - x + x * y, b = 2.25 - x + x * y * y, c = 2.625 - x + x * y * y * y;
         g[0] = 2 * a * (y - 1) + 2 * b * (y * y - 1) + 2 * c * (y * y * y - 1);
         g[1] = 2 * a * x + 4 * b * x * y + 6 * c * x * y * y;
         return a * a + b * b + c * c;
       }},
      {"Booth",
       {-7, 9},
       0,
       12,
       [](auto const& v, auto& g) {
         double const a = v[0] + 2 * v[1] - 7, b = 2 * v[0] + v[1] - 5;
         g[0] = 2 * a + 4 * b;
         g[1] = 4 * a + 2 * b;
         return a * a + b * b;
       }},
      {"Himmelblau",
       {0, 0},
       0,
       15,
       [](auto const& v, auto& g) {
         double const x = v[0], y = v[1], a = x * x + y - 11, b = x + y * y - 7;
         g[0] = 4 * x * a + 2 * b;
         g[1] = 2 * a + 4 * y * b;
         return a * a + b * b;
       }},
      {"Styblinski-Tang",
       {-2, -2.5f, -3.5f},
       3 * -39.16616570377142,
       12,
       [](auto const& v, auto& g) {
         double sum = 0;
         for (std::size_t i = 0; i < v.size(); ++i) {
           double const x = v[i];
           sum += 0.5 * (x * x * x * x - 16 * x * x + 5 * x);
           g[i] = 0.5 * (4 * x * x * x - 32 * x + 5);
         }
         return sum;
       }},
      {"a quadratic of condition 1e4", std::vector<float>(30, -2.0f), 0, 800, quadratic(spread(30, 1e4))},
  };
}

}  // namespace test
