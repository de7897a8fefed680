// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Trainings on parameters of doubles, and the same ones on floats.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>

#include <doctest/doctest.h>

#include "rules/known.hpp"

namespace doubles {

using namespace dovetail;

inline std::vector<named_shape> tensors() {
  return {{"a.weight", {1}},     {"a.bias", {31}},     {"none", {0}},
          {"b.weight", {3, 11}}, {"c.weight", {7, 6}}, {"c.bias", {7}}};
}
/// In (-1, 1), with all the bits of a double.
inline double value(std::uint64_t stream, std::size_t i) {
  auto x = (i + 1) * 0x9E3779B97F4A7C15u + stream * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  return static_cast<double>(static_cast<std::int64_t>(x >> 11) - (std::int64_t{1} << 52)) * 0x1p-52;
}

/// Weights that a rule trains, by drawn gradients that pull to 0 a little.
template <class T>
struct training {
  basic_arena<T> a{tensors()};
  double shift = 0;  ///< of all gradients, along a drawn direction
  int t = 0;
  optim::step_context context{};

  template <class Rule>
  explicit training(Rule rule) {
    for (std::size_t i = 0; i < a.weights().size(); ++i) a.weights()[i] = static_cast<T>(value(1, i));
    auto& p = a.parameters();
    using state_type = decltype(rule.init(p));
    auto const s = std::make_shared<state_type>(rule.init(p));
    step_ = [rule, s, &p](optim::step_context const& x, int t) {
      show(rule, p, *s, t);
      return rule.step(p, *s, x);
    };
    listed_ = [s] { return s->tensors(""); };
  }
  training(training const&) = delete;

  optim::step_result step() { return step_(context, t); }
  std::vector<named_tensor> listed() { return listed_(); }
  void run(int to) {
    while (t < to) {
      ++t;
      auto const w = a.weights(), g = a.gradients();
      auto const stream = static_cast<std::uint64_t>(100 + t);
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = static_cast<T>(value(stream, i) + 0.3 * static_cast<double>(w[i]) + shift * value(stream + 1000, i));
      context.loss = 1.25 + value(7, static_cast<std::size_t>(t));
      step();
    }
  }

 private:
  template <class Rule, class State>
  static void show(Rule const& rule, basic_parameter_list<T> const& p, State& s, int t) {
    using traits = optim::optimizer_traits<Rule, T>;
    auto const stream = static_cast<std::uint64_t>(5000 + t);
    if constexpr (traits::needs.curvature)
      if (optim::needs_of<T>(rule).curvature && t % 3 == 1) {
        std::vector<T> h(p.flat_size());
        for (std::size_t i = 0; i < h.size(); ++i) h[i] = static_cast<T>(1 + 0.5 * value(stream, i));
        rule.observe(p, s, optim::basic_hessian_diagonal<T>{h});
      }
    if constexpr (traits::needs.layers)
      if (optim::needs_of<T>(rule).layers)
        for (std::size_t i = 0; i < p.size(); ++i) {
          if (p[i].shape.rank < 2) continue;
          std::int64_t const rows = 16, out = p[i].shape[0], in = p[i].shape.size() / out;
          std::vector<T> x(static_cast<std::size_t>(rows * in)), g(static_cast<std::size_t>(rows * out));
          for (std::size_t k = 0; k < x.size(); ++k) x[k] = static_cast<T>(value(stream + 1000, k));
          for (std::size_t k = 0; k < g.size(); ++k) g[k] = static_cast<T>(value(stream + 2000, k));
          rule.observe(p, s,
                       basic_kfac_statistics<T>{.first = p.offset(i),
                                                .rows = rows,
                                                .in = in,
                                                .out = out,
                                                .inputs = x.data(),
                                                .output_gradients = g.data(),
                                                .scale = 0.25f});
        }
  }
  std::function<optim::step_result(optim::step_context const&, int)> step_;
  std::function<std::vector<named_tensor>()> listed_;
};

/// A rule's steps of doubles are those of floats, as far as floats can tell, and answer to small changes of a gradient:
/// twice the change, twice the answer. Were something rounded to a float on the way, answers would have stairs of 6e-8
/// in them, hundredths of the whole. Factors of sums are floats: rules that have any are let off the second.
inline void check_rule(known::rule const& r, double tolerance = 2e-4) {
  CAPTURE(r.name);
  constexpr int steps = 12;
  constexpr double change = 2e-6;
  training<float> floats(r.typed());
  training<double> zero(r.doubles()), one(r.doubles()), two(r.doubles());
  one.shift = change;
  two.shift = 2 * change;
  floats.run(steps);
  for (auto* t : {&zero, &one, &two}) t->run(steps);
  double apart = 0, answer = 0, bent = 0;
  std::size_t not_floats = 0;
  for (std::size_t i = 0; i < zero.a.weights().size(); ++i) {
    double const w = zero.a.weights()[i];
    double const first = one.a.weights()[i] - w, second = two.a.weights()[i] - w;
    apart = std::max(apart, std::abs(static_cast<double>(floats.a.weights()[i]) - w) / std::max(1.0, std::abs(w)));
    answer = std::max(answer, std::abs(second));
    bent = std::max(bent, std::abs(second - 2 * first));
    not_floats += static_cast<double>(static_cast<float>(w)) != w;
  }
  CHECK(apart < tolerance);
  CHECK(not_floats > zero.a.weights().size() / 2);
  if (r.plan.factors == 0) CHECK(bent <= 1e-3 * answer + 4e-15);
}

}  // namespace doubles
