// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// A training without a model: tensors of many sizes, gradients that are drawn, and what rules want to see besides.
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>

namespace conformance {

using namespace dovetail;

inline std::vector<arena::tensor> tensors() {
  return {{"a.weight", {1}},     {"a.bias", {31}},      {"none", {0}},
          {"b.weight", {3, 11}}, {"c.weight", {70001}}, {"c.bias", {2}}};
}
inline void fill(std::span<float> x, std::uint32_t stream, float scale = 1) {
  random_stream const r{5, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * (2 * r.uniform(i) - 1);
}
inline bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
inline bool finite(std::span<float const> x) { return all_finite(x); }

/// What backward would show of the matrices of a list, to a rule that learns from layers.
template <class Rule, class State>
void show_layers(Rule const& rule, parameter_list const& p, State& state, int t) {
  if constexpr (optim::optimizer_traits<Rule>::needs.layers) {
    if (!optim::needs_of(rule).layers) return;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i].shape.rank < 2) continue;
      std::int64_t const rows = 16, out = p[i].shape[0], in = p[i].shape.size() / out;
      std::vector<float> x(static_cast<std::size_t>(rows * in)), g(static_cast<std::size_t>(rows * out));
      fill(x, static_cast<std::uint32_t>(1000 + t));
      fill(g, static_cast<std::uint32_t>(2000 + t));
      rule.observe(p, state,
                   kfac_statistics{.first = p.offset(i),
                                   .rows = rows,
                                   .in = in,
                                   .out = out,
                                   .inputs = x.data(),
                                   .output_gradients = g.data(),
                                   .scale = 0.25f});
    }
  }
}

/// The loss of step t, for rules that need one.
inline optim::step_context with_loss(std::uint32_t t, optim::step_context options = {}) {
  options.loss = 1 + static_cast<double>(random_stream{5, 500}.uniform(t));
  return options;
}

/// An arena of weights, and its optimizer's state, after `steps` steps.
template <class Rule>
struct training {
  Rule rule;
  arena a{tensors()};
  optim::state state;

  explicit training(Rule r) : rule(std::move(r)), state((fill(a.weights(), 1), rule.init(a.parameters()))) {}
  void run(int from, int to, optim::step_context const& options = {}) {
    for (int t = from; t <= to; ++t) {
      fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
      show_layers(rule, a.parameters(), state, t);
      rule.step(a.parameters(), state, with_loss(static_cast<std::uint32_t>(t), options));
    }
  }
};

}  // namespace conformance
