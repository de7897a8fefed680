// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Training with one rule, undivided and divided among ranks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/sync/shard.hpp>

#include <doctest/doctest.h>

namespace divided {

using namespace dovetail;

/// Sizes around a block of 256, and 5000.
inline std::vector<arena::tensor> tensors() {
  return {{"none", {0}},         {"one", {1}},
          {"a.bias", {255}},     {"a.weight", {16, 16}},
          {"b.bias", {257}},     {"b.weight", {50, 100}},
          {"c.weight", {7, 40}}, {"none.at.the.end", {0}}};
}
inline void fill(std::span<float> x, std::uint32_t stream) {
  random_stream const r{5, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * r.uniform(i) - 1;
}
template <class T>
bool same_bits(std::span<T const> a, std::span<T const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// One rank's model, in fp32 and in bf16, and its gradients.
struct replica {
  arena a{tensors()};
  std::vector<bf16> half, half_gradient;
  parameter_list without_memory;

  replica() : half(a.weights().size()), half_gradient(half.size()) {
    fill(a.weights(), 1);
    std::transform(a.weights().begin(), a.weights().end(), half.begin(), [](float w) { return bf16(w); });
    for (auto const& t : tensors()) without_memory.add_opaque(t.name, t.shape);
  }
  replica(replica const&) = delete;  // rules have spans of it

  template <class Half>
  static std::vector<std::span<Half>> by_tensor(parameter_list const& p, std::vector<bf16>& values) {
    std::vector<std::span<Half>> spans;
    for (std::size_t i = 0; i < p.size(); ++i) spans.push_back(std::span(values).subspan(p.offset(i), p[i].size()));
    return spans;
  }
  std::vector<std::span<bf16>> halves() { return by_tensor<bf16>(a.parameters(), half); }

  template <class Rule, class State>
  optim::step_result step(Rule const& rule, State& state, int t, bool in_half) {
    fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
    if (!in_half) return rule.step(a.parameters(), state);
    for (std::size_t i = 0; i < half.size(); ++i) half_gradient[i] = bf16(a.gradients()[i]);
    auto const spans = by_tensor<bf16 const>(a.parameters(), half_gradient);
    return rule.step(without_memory, state, optim::gradient::half<bf16>{spans});
  }
  parameter_list const& list(bool in_half) const { return in_half ? without_memory : a.parameters(); }
  void take_weights(replica const& from) {
    std::copy_n(const_cast<replica&>(from).a.weights().begin(), half.size(), a.weights().begin());
    half = from.half;
  }
};

/// The largest difference of weights; those that are held in bf16 must be equal if `exact` is said.
inline double difference(replica& x, replica& y) {
  double worst = 0;
  for (std::size_t i = 0; i < x.half.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(x.a.weights()[i] - y.a.weights()[i])));
    worst =
        std::max(worst, static_cast<double>(std::abs(static_cast<float>(x.half[i]) - static_cast<float>(y.half[i]))));
  }
  return worst;
}
template <class State>
std::vector<std::string> names(State& s) {
  std::vector<std::string> all;
  for (auto const& t : s.tensors("x.")) all.push_back(message(t.name, ' ', t.shape));
  return all;
}

struct expectation {
  bool in_half = false;                               ///< weights are in bf16 alone
  double nearness = 0;                                ///< 0: the same bits
  std::vector<std::vector<std::size_t>> bounds = {};  ///< for as many ranks as they say, beside 1 to 5 with their own
};

/// A rule, or make(replica&) that makes one with spans of a replica. 1 to 5 ranks do what one does alone; with the
/// state that they put together after three steps another number of ranks goes on.
template <class Rule>
void check(Rule const& rule_or_maker, expectation const& e = {}) {
  auto const make = [&]([[maybe_unused]] replica& m) {
    if constexpr (requires { rule_or_maker(m); })
      return rule_or_maker(m);
    else
      return rule_or_maker;
  };
  int const before = 3, steps = 7;
  auto const n = [&](replica& m) -> parameter_list const& { return m.list(e.in_half); };
  replica middle, alone;
  auto const rule = make(alone);
  auto state = rule.init(n(alone));
  auto state_before = state;
  for (int t = 1; t <= steps; ++t) {
    alone.step(rule, state, t, e.in_half);
    if (t == before) {
      middle.take_weights(alone);
      state_before = state;
    }
  }
  auto const check_weights = [&](replica& m, replica& expected) {
    if (e.nearness != 0) {
      CHECK(difference(m, expected) <= e.nearness);
    } else {
      CHECK(same_bits<float>(m.a.weights(), expected.a.weights()));
      CHECK(same_bits<bf16>(m.half, expected.half));
    }
  };
  auto const run = [&](int ranks, std::vector<std::size_t> const& bounds) {
    CAPTURE(ranks);
    auto saved = std::make_unique<replica>();
    auto saved_state = state;
    comm::threads(ranks).run([&](auto& c) {
      replica m;
      auto const opt = sync::shard(make(m), c, bounds);
      auto part = opt.init(n(m));
      for (int t = 1; t <= before; ++t) CHECK(m.step(opt, part, t, e.in_half).step == t);
      auto whole = opt.gathered(n(m), part);
      check_weights(m, middle);
      if (e.nearness == 0) CHECK(whole == state_before);
      CHECK(names(whole) == names(state_before));
      if (c.rank() == 0) {
        saved->take_weights(m);
        saved_state = whole;
      }
    });
    int const others = 6 - ranks;
    CAPTURE(others);
    comm::threads(others).run([&](auto& c) {
      replica m;
      m.take_weights(*saved);
      auto const opt = sync::shard(make(m), c);
      auto part = opt.part_of_state(n(m), saved_state);
      for (int t = before + 1; t <= steps; ++t) CHECK(m.step(opt, part, t, e.in_half).step == t);
      check_weights(m, alone);
      if (e.nearness == 0) CHECK(opt.gathered(n(m), part) == state);
    });
  };
  for (int ranks = 1; ranks <= 5; ++ranks) run(ranks, {});
  for (auto const& b : e.bounds) run(static_cast<int>(b.size()) - 1, b);
}

}  // namespace divided
