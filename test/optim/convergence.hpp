// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Problems whose minimum is known, in double precision with gradients by hand, and a table of how many steps each rule
// may take to it.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <numbers>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

#include <doctest/doctest.h>

#include "rules/known.hpp"

namespace convergence {

using namespace dovetail;
using weights = std::span<double const>;
using slopes = std::span<double>;

struct problem {
  std::string name;
  std::vector<arena::tensor> tensors;
  std::vector<double> start;
  double minimum;                                     ///< the value to reach
  std::function<double(weights, slopes)> evaluate{};  ///< writes the gradient, returns the value
};

inline double square(double x) { return x * x; }
constexpr double pi = std::numbers::pi;

// ---- Functions of two numbers (styblinski_tang: three). Those with many minima start in the basin of the lowest one:
// to find that basin is not what these rules are for.

/// A bent valley whose floor falls slowly (Rosenbrock, 1960); minimum at (1, 1).
inline problem const rosenbrock{"rosenbrock", {{"w", {2}}}, {-1.2, 1}, 0, [](weights w, slopes g) {
                                  double const a = 1 - w[0], b = w[1] - w[0] * w[0];
                                  g[0] = -2 * a - 400 * w[0] * b;
                                  g[1] = 200 * b;
                                  return a * a + 100 * b * b;
                                }};

/// Flat plains and steep walls (Beale, 1958); minimum at (3, 1/2).
inline problem const beale{"beale", {{"w", {2}}}, {1, 1}, 0, [](weights w, slopes g) {
                             double const x = w[0], y = w[1];
                             double const a = 1.5 - x + x * y, b = 2.25 - x + x * y * y, c = 2.625 - x + x * y * y * y;
                             g[0] = 2 * (a * (y - 1) + b * (y * y - 1) + c * (y * y * y - 1));
                             g[1] = 2 * x * (a + 2 * b * y + 3 * c * y * y);
                             return a * a + b * b + c * c;
                           }};

/// A bowl nine times as steep across as along; minimum at (1, 3).
inline problem const booth{"booth", {{"w", {2}}}, {-5, -2}, 0, [](weights w, slopes g) {
                             double const a = w[0] + 2 * w[1] - 7, b = 2 * w[0] + w[1] - 5;
                             g[0] = 2 * a + 4 * b;
                             g[1] = 4 * a + 2 * b;
                             return a * a + b * b;
                           }};

/// Four minima, all of them 0 (Himmelblau, 1972): any will do.
inline problem const himmelblau{"himmelblau", {{"w", {2}}}, {0, 0}, 0, [](weights w, slopes g) {
                                  double const a = w[0] * w[0] + w[1] - 11, b = w[0] + w[1] * w[1] - 7;
                                  g[0] = 4 * a * w[0] + 2 * b;
                                  g[1] = 2 * a + 4 * b * w[1];
                                  return a * a + b * b;
                                }};

/// Two minima along each axis (Styblinski & Tang, 1990); the lower one at -2.9035340.
inline problem const styblinski_tang{
    "styblinski_tang", {{"w", {3}}}, {-4, -1, -2}, 3 * -39.16616570377142, [](weights w, slopes g) {
      double sum = 0;
      for (std::size_t i = 0; i < w.size(); ++i) {
        double const x = w[i];
        g[i] = 2 * x * x * x - 16 * x + 2.5;
        sum += 0.5 * (x * x * x * x - 16 * x * x + 5 * x);
      }
      return sum;
    }};

/// A funnel full of dents with a tip that is no bowl: the gradient does not fall towards the minimum at 0 (Ackley,
/// 1987), so rates must.
inline problem const ackley{"ackley", {{"w", {2}}}, {0.3, -0.4}, 0, [](weights w, slopes g) {
                              double const n = static_cast<double>(w.size());
                              double squares = 0, waves = 0;
                              for (double x : w) squares += x * x, waves += std::cos(2 * pi * x);
                              double const r = std::sqrt(squares / n);
                              double const a = 20 * std::exp(-0.2 * r), b = std::exp(waves / n);
                              for (std::size_t i = 0; i < w.size(); ++i)
                                g[i] =
                                    (r > 0 ? 0.2 * a * w[i] / (n * r) : 0) + b * 2 * pi * std::sin(2 * pi * w[i]) / n;
                              return 20 + std::numbers::e - a - b;
                            }};

/// Waves on a slope (Levy & Montalvo, 1985); minimum at (1, 1).
inline problem const levy{"levy", {{"w", {2}}}, {2, -0.5}, 0, [](weights w, slopes g) {
                            double const a = 1 + (w[0] - 1) / 4, b = 1 + (w[1] - 1) / 4;
                            double const s = std::sin(pi * a), t = std::sin(pi * a + 1), u = std::sin(2 * pi * b);
                            g[0] = (2 * pi * s * std::cos(pi * a) + 2 * (a - 1) * (1 + 10 * t * t) +
                                    20 * pi * square(a - 1) * t * std::cos(pi * a + 1)) /
                                   4;
                            g[1] = (2 * (b - 1) * (1 + u * u) + 4 * pi * square(b - 1) * u * std::cos(2 * pi * b)) / 4;
                            return s * s + square(a - 1) * (1 + 10 * t * t) + square(b - 1) * (1 + u * u);
                          }};

/// A bowl with a dent at every whole number (Rastrigin, 1974); minimum at 0.
inline problem const rastrigin{"rastrigin", {{"w", {2}}}, {0.3, -0.2}, 0, [](weights w, slopes g) {
                                 double sum = 0;
                                 for (std::size_t i = 0; i < w.size(); ++i) {
                                   g[i] = 2 * w[i] + 20 * pi * std::sin(2 * pi * w[i]);
                                   sum += 10 + w[i] * w[i] - 10 * std::cos(2 * pi * w[i]);
                                 }
                                 return sum;
                               }};

// ---- Learning from samples.

struct samples {
  std::size_t features;
  std::vector<double> x;           ///< row-major
  std::vector<std::size_t> label;  ///< three classes
  std::size_t size() const { return label.size(); }
};
constexpr std::size_t classes = 3;

/// Turns logits into probabilities in place; returns the loss of the label.
inline double softmax(std::span<double> z, std::size_t label) {
  double const top = *std::max_element(z.begin(), z.end()), at_label = z[label];
  double sum = 0;
  for (double& v : z) sum += v = std::exp(v - top);
  for (double& v : z) v /= sum;
  return top + std::log(sum) - at_label;
}

/// Four features of sizes 1/2 to 2; labels of a linear teacher, every tenth of them wrong.
inline samples noisy_samples() {
  random_stream const random{17};
  std::uint64_t n = 0;
  auto const draw = [&] { return 2.0 * static_cast<double>(random.uniform(n++)) - 1; };
  samples s{4, {}, {}};
  for (std::size_t i = 0; i < 150; ++i) {
    double const x[] = {0.5 * draw(), draw(), 1.5 * draw(), 2 * draw()};
    double const z[] = {2 * x[0] + x[1] - x[2], x[1] + x[3] - 0.5, x[2] - x[0] - x[3]};
    s.x.insert(s.x.end(), x, x + 4);
    auto const best = static_cast<std::size_t>(std::max_element(z, z + classes) - z);
    s.label.push_back(i % 10 == 0 ? (best + 1) % classes : best);
  }
  return s;
}

/// Multinomial logistic regression on noisy_samples: mean cross-entropy + 0.005 |w|^2, over a weight {3, 4} and a bias.
struct logistic_loss {
  samples data = noisy_samples();
  static constexpr double decay = 0.01;

  std::array<double, classes> probabilities(weights w, std::size_t i, double& loss) const {
    std::array<double, classes> z;
    for (std::size_t c = 0; c < classes; ++c) {
      z[c] = w[12 + c];
      for (std::size_t f = 0; f < 4; ++f) z[c] += w[4 * c + f] * data.x[4 * i + f];
    }
    loss += softmax(z, data.label[i]) / static_cast<double>(data.size());
    return z;
  }
  /// Feature f of sample i; the bias is the last.
  double feature(std::size_t i, std::size_t f) const { return f < 4 ? data.x[4 * i + f] : 1; }
  static std::size_t index(std::size_t c, std::size_t f) { return f < 4 ? 4 * c + f : 12 + c; }

  double operator()(weights w, slopes g) const {
    double loss = 0;
    for (std::size_t k = 0; k < w.size(); ++k) {
      loss += 0.5 * decay * w[k] * w[k];
      g[k] = decay * w[k];
    }
    for (std::size_t i = 0; i < data.size(); ++i) {
      auto const p = probabilities(w, i, loss);
      for (std::size_t c = 0; c < classes; ++c)
        for (std::size_t f = 0; f < 5; ++f)
          g[index(c, f)] += (p[c] - (c == data.label[i] ? 1 : 0)) * feature(i, f) / static_cast<double>(data.size());
    }
    return loss;
  }

  /// The optimum, by Newton's method.
  std::vector<double> solve() const {
    constexpr std::size_t n = 15;
    std::vector<double> w(n), g(n), h(n * n);
    for (int step = 0; step < 20; ++step) {
      (*this)(w, g);
      std::fill(h.begin(), h.end(), 0.0);
      for (std::size_t k = 0; k < n; ++k) h[n * k + k] = decay;
      for (std::size_t i = 0; i < data.size(); ++i) {
        double unused = 0;
        auto const p = probabilities(w, i, unused);
        for (std::size_t a = 0; a < n; ++a)
          for (std::size_t b = 0; b < n; ++b) {
            std::size_t const ca = a / 5, cb = b / 5;
            h[n * index(ca, a % 5) + index(cb, b % 5)] += p[ca] * ((ca == cb ? 1 : 0) - p[cb]) * feature(i, a % 5) *
                                                          feature(i, b % 5) / static_cast<double>(data.size());
          }
      }
      for (std::size_t k = 0; k < n; ++k)  // Gauss and Jordan; the Hessian is positive definite, so no pivoting
        for (std::size_t r = 0; r < n; ++r) {
          if (r == k) continue;
          double const factor = h[n * r + k] / h[n * k + k];
          for (std::size_t c = k; c < n; ++c) h[n * r + c] -= factor * h[n * k + c];
          g[r] -= factor * g[k];
        }
      for (std::size_t k = 0; k < n; ++k) w[k] -= g[k] / h[n * k + k];
    }
    return w;
  }
};

inline problem const logistic_regression = [] {
  logistic_loss const loss;
  std::vector<double> unused(15), start(15, 0.1);  // not 0: layer-wise rates are relative to the weights
  return problem{"logistic_regression", {{"weight", {3, 4}}, {"bias", {3}}}, start, loss(loss.solve(), unused), loss};
}();

/// Three arms of a spiral, a class each.
inline samples spiral() {
  random_stream const random{23};
  samples s{2, {}, {}};
  for (std::size_t i = 0; i < 120; ++i) {
    double const r = 0.1 + 0.9 * static_cast<double>(i / classes) / 40;
    double const angle =
        2 * pi * static_cast<double>(i % classes) / 3 + 5 * r + 0.3 * static_cast<double>(random.uniform(i));
    s.x.insert(s.x.end(), {2 * r * std::cos(angle), 2 * r * std::sin(angle)});
    s.label.push_back(i % classes);
  }
  return s;
}

/// A network of one hidden layer of 16 tanh, and its mean cross-entropy on the spiral.
struct network_loss {
  samples data = spiral();
  static constexpr std::size_t hidden = 16, inputs = 2;
  static constexpr std::size_t b1 = hidden * inputs, w2 = b1 + hidden, b2 = w2 + classes * hidden, size = b2 + classes;

  double operator()(weights w, slopes g) const {
    std::fill(g.begin(), g.end(), 0.0);
    double const share = 1 / static_cast<double>(data.size());
    double loss = 0;
    for (std::size_t i = 0; i < data.size(); ++i) {
      double const* const x = data.x.data() + inputs * i;
      std::array<double, hidden> h, dh{};
      std::array<double, classes> z;
      for (std::size_t j = 0; j < hidden; ++j)
        h[j] = std::tanh(w[inputs * j] * x[0] + w[inputs * j + 1] * x[1] + w[b1 + j]);
      for (std::size_t c = 0; c < classes; ++c) {
        z[c] = w[b2 + c];
        for (std::size_t j = 0; j < hidden; ++j) z[c] += w[w2 + hidden * c + j] * h[j];
      }
      loss += share * softmax(z, data.label[i]);
      for (std::size_t c = 0; c < classes; ++c) {
        double const d = share * (z[c] - (c == data.label[i] ? 1 : 0));
        g[b2 + c] += d;
        for (std::size_t j = 0; j < hidden; ++j) {
          g[w2 + hidden * c + j] += d * h[j];
          dh[j] += d * w[w2 + hidden * c + j];
        }
      }
      for (std::size_t j = 0; j < hidden; ++j) {
        double const d = dh[j] * (1 - h[j] * h[j]);
        g[b1 + j] += d;
        for (std::size_t k = 0; k < inputs; ++k) g[inputs * j + k] += d * x[k];
      }
    }
    return loss;
  }
};

/// The minimum is 0, far away: tolerances are losses.
inline problem const network = [] {
  random_stream const random{29};
  std::vector<double> start(network_loss::size);
  for (std::size_t k = 0; k < start.size(); ++k)
    start[k] = (k < network_loss::w2 ? 0.7 : 0.25) * (2 * static_cast<double>(random.uniform(k)) - 1);
  return problem{"network",
                 {{"0.weight", {16, 2}}, {"0.bias", {16}}, {"1.weight", {3, 16}}, {"1.bias", {3}}},
                 start,
                 0,
                 network_loss{}};
}();

inline std::vector<problem const*> const all_problems{&rosenbrock,          &beale,  &booth, &himmelblau,
                                                      &styblinski_tang,     &ackley, &levy,  &rastrigin,
                                                      &logistic_regression, &network};

// ---- The table.

struct line {
  std::string rule;
  problem const* on;
  double tolerance;  ///< of the value
  int most;          ///< steps
  std::string settings;
};

/// The lines of a file (convergence.txt).
inline std::vector<line> lines_of(char const* path) {
  std::ifstream in(path);
  REQUIRE(in.is_open());
  std::vector<line> all;
  for (std::string text; std::getline(in, text);) {
    if (text.empty() || text.starts_with('#')) continue;
    CAPTURE(text);
    line l;
    std::istringstream words(text);
    std::string on, name, to, within, with;
    words >> l.rule >> on >> name >> to >> l.tolerance >> within >> l.most >> with >> std::ws;
    std::getline(words, l.settings);
    REQUIRE(on + to + within + with == "ontoinwith");
    auto const p = std::find_if(all_problems.begin(), all_problems.end(), [&](auto* x) { return x->name == name; });
    REQUIRE(p != all_problems.end());
    l.on = *p;
    all.push_back(l);
  }
  return all;
}

/// The step from which on ten values in a row are within `tolerance` of the minimum; -1 if there is none up to `most`.
/// Schedule-free rules are judged by the weights that they give out.
inline int steps_to(problem const& p, double tolerance, int most, known::rule const& r, known::recipe const& recipe) {
  bool const averages = r.averages && r.family == "schedule_free";
  auto const rule = r.any(recipe);
  arena a(p.tensors);
  std::copy(p.start.begin(), p.start.end(), a.weights().begin());
  auto state = rule.init(a.parameters());
  std::vector<double> w(p.start), g(w.size()), unused(w.size());
  std::vector<float> average(w.size());
  for (int t = 1, within = 0; t < most + 10; ++t) {
    double const loss = p.evaluate(w, g);
    std::transform(g.begin(), g.end(), a.gradients().begin(), [](double x) { return static_cast<float>(x); });
    rule.step(a.parameters(), state, {.loss = loss});
    w.assign(a.weights().begin(), a.weights().end());
    double value = 0;
    if (averages) {
      r.averaged_weights(recipe, a.parameters(), state, average);
      value = p.evaluate(std::vector<double>(average.begin(), average.end()), unused);
    } else {
      value = p.evaluate(w, unused);
    }
    if (!std::isfinite(value)) return -1;
    within = value - p.minimum <= tolerance ? within + 1 : 0;
    if (within == 10) return t - 9;
  }
  return -1;
}

using rules = std::vector<std::unique_ptr<known::rule const>>;

inline void check(std::vector<line> const& table, rules const& all, problem const& on) {
  for (auto const& l : table) {
    if (l.on != &on) continue;
    auto const r = std::find_if(all.begin(), all.end(), [&](auto const& x) { return x->name == l.rule; });
    REQUIRE_MESSAGE(r != all.end(), "there is no rule ", l.rule);
    int const steps = steps_to(on, l.tolerance, l.most, **r, {known::settings_of(l.settings)});
    CHECK_MESSAGE(steps > 0, l.rule, " on ", on.name, ": not within ", l.tolerance, " after ", l.most, " steps");
    if (steps > 0)
      CHECK_MESSAGE(2 * steps >= l.most, l.rule, " on ", on.name, ": there after ", steps,
                    " steps: let the table say less than ", l.most);
  }
}

/// Every rule that steps by gradients alone learns from samples, and takes the valley unless it is `layer_wise`: its
/// steps are shared by the numbers of a tensor, of which functions of two numbers have one. A rule that has no line at
/// all gets there at one of a few rates.
inline void check_complete(std::vector<line> const& table, rules const& all, std::set<std::string> const& layer_wise) {
  std::set<std::string> listed, with_lines;
  for (auto const& l : table) {
    listed.insert(l.rule + " on " + l.on->name);
    with_lines.insert(l.rule);
  }
  for (auto const& r : all) {
    if (r->needs.layers || r->needs.curvature) continue;  // kfac.cpp, curvature.cpp
    if (with_lines.contains(r->name)) {
      for (auto const* on : {&logistic_regression, &network, &rosenbrock})
        if (on != &rosenbrock || !layer_wise.contains(r->name))
          CHECK_MESSAGE(listed.contains(r->name + " on " + on->name), r->name, " has no line for ", on->name);
      continue;
    }
    for (auto const& [on, tolerance] : {std::pair{&logistic_regression, 1e-3}, {&network, 0.1}}) {
      bool there = false;
      for (float const rate : {1e-3f, 1e-2f, 0.1f, 1.0f, 10.0f}) {
        known::recipe recipe;
        if (r->field("lr")) recipe.unchecked.push_back({"lr", rate});
        if (r->field("weight_decay")) recipe.unchecked.push_back({"weight_decay", 0});
        there = there || steps_to(*on, tolerance, 1000, *r, recipe) > 0;
      }
      CHECK_MESSAGE(there, r->name, " on ", on->name, ": not within ", tolerance, " after 1000 steps at any rate");
    }
  }
}

}  // namespace convergence
