// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// 1-bit LAMB against its formula in doubles. What it has in common with 1-bit Adam: contribute.cpp.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <dovetail/dovetail.hpp>

#include "gradients.hpp"

namespace sync_one_bit_lamb {

using namespace dovetail;

static_assert(optim::optimizer_traits<sync::one_bit_lamb>::contributes);

namespace {

double number(float x) { return static_cast<double>(x); }

/// The rule in doubles, on the sum of all ranks' gradients.
struct reference {
  sync::one_bit_lamb rule;
  std::vector<std::size_t> first;  // of each tensor, then the number of elements
  std::vector<double> w, m, v, z, mean, factor;
  int t = 0;

  reference(sync::one_bit_lamb const& r, arena& a) : rule(r), w(a.weights().begin(), a.weights().end()) {
    for (std::size_t i = 0; i <= a.parameters().size(); ++i) first.push_back(a.parameters().offset(i));
    m = v = z = std::vector<double>(w.size());
    mean = std::vector<double>(first.size() - 1);
    factor = std::vector<double>(first.size() - 1, 1.0);
  }
  static double norm(std::vector<double> const& x, std::size_t begin, std::size_t end) {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += x[i] * x[i];
    return std::sqrt(sum);
  }
  void step(std::vector<double> const& g) {
    ++t;
    for (std::size_t k = 0; k + 1 < first.size(); ++k) t <= rule.warmup_steps ? lamb(g, k) : average(g, k);
    if (t == rule.warmup_steps) z = v;
  }
  void lamb(std::vector<double> const& g, std::size_t k) {
    std::vector<double> r(w.size());
    for (std::size_t i = first[k]; i < first[k + 1]; ++i) {
      m[i] = number(rule.beta1) * m[i] + (1 - number(rule.beta1)) * g[i];
      v[i] = number(rule.beta2) * v[i] + (1 - number(rule.beta2)) * g[i] * g[i];
      r[i] = m[i] / (std::sqrt(v[i]) + number(rule.epsilon)) + number(rule.weight_decay) * w[i];
    }
    double const of_weights = norm(w, first[k], first[k + 1]), of_update = norm(r, first[k], first[k + 1]);
    double c = 1;
    if (of_weights > 0 && of_update > 0) {
      c = std::min(std::max(of_weights / of_update, number(rule.min_coefficient)), number(rule.max_coefficient));
      double const beta = number(rule.coefficient_beta);
      mean[k] = mean[k] > 0 ? beta * mean[k] + (1 - beta) * c : c;
    }
    for (std::size_t i = first[k]; i < first[k + 1]; ++i) w[i] -= number(rule.lr(t - 1)) * c * r[i];
  }
  void average(std::vector<double> const& g, std::size_t k) {
    std::vector<double> d(w.size()), r(w.size());
    double ratio = 0;
    for (std::size_t i = first[k]; i < first[k + 1]; ++i) {
      double const before = m[i];
      m[i] = number(rule.beta1) * m[i] + (1 - number(rule.beta1)) * g[i];
      double const found = (m[i] - number(rule.beta1) * before) / (1 - number(rule.beta1));
      z[i] = number(rule.beta2) * z[i] + (1 - number(rule.beta2)) * found * found;
      d[i] = m[i] / (std::sqrt(v[i]) + number(rule.epsilon));
      r[i] = d[i] + number(rule.weight_decay) * w[i];
      ratio = std::max(ratio, (std::sqrt(v[i]) + number(rule.epsilon)) / (std::sqrt(z[i]) + number(rule.epsilon)));
    }
    double const share = std::min(1.0, norm(d, first[k], first[k + 1]) / norm(r, first[k], first[k + 1]));
    double f = ratio * share + 1 - share;
    f = std::min(std::max(f, number(rule.min_factor)), number(rule.max_factor));
    double const change = number(rule.factor_change);
    factor[k] = f = std::min(std::max(f, factor[k] * (1 - change)), factor[k] * (1 + change));
    for (std::size_t i = first[k]; i < first[k + 1]; ++i) w[i] -= number(rule.lr(t - 1)) * f * mean[k] * r[i];
  }
};

/// Larger at first: behind the warmup, factors grow.
void fill(std::span<float> gradients, int rank, std::uint64_t step) {
  test::fill(gradients, rank, step);
  for (float& g : gradients) g *= step < 3 ? 1.f : 0.3f;
}
std::vector<double> sum_of_gradients(int ranks, std::uint64_t step) {
  auto a = test::odd_arena();
  std::vector<double> sum(a.gradients().size());
  for (int r = 0; r < ranks; ++r) {
    fill(a.gradients(), r, step);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += number(a.gradients()[i]);
  }
  return sum;
}
double largest_difference(std::vector<double> const& a, std::span<float const> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - number(b[i])));
  return most;
}

sync::one_bit_lamb const rule{.lr = 0.01f,
                              .beta1 = 0.8f,
                              .beta2 = 0.9f,
                              .epsilon = 1e-4f,
                              .weight_decay = 0.1f,
                              .coefficient_beta = 0.7f,
                              .warmup_steps = 3};

}  // namespace

TEST_CASE("the formula, on ranks, in buckets, and apart in memory") {
  for (int const ranks : {1, 2, 3})
    for (bool const scattered : {false, true})
      comm::threads(ranks).run([&](auto& c) {
        auto a = test::odd_arena();
        test::fill(a.weights(), 0, 1000);
        a.weights()[0] = 0;  // a tensor of norm 0 at first
        std::vector<std::vector<float>> memory;
        memory.reserve(2 * a.parameters().size());
        parameter_list apart;
        for (auto& p : a.parameters()) {
          auto& w = memory.emplace_back(p.weight.begin(), p.weight.end());
          // States are by rows, gradients as they lie.
          apart.add(p.name, w, memory.emplace_back(p.size()), p.shape, layout::column_major);
        }
        auto& list = scattered ? apart : a.parameters();
        reference expected(rule, a);
        auto session = sync::all_reduce{.bucket_bytes = 500}.join(list, rule, c);
        for (std::uint64_t s = 0; s < 12; ++s) {
          session.begin();
          fill(a.gradients(), c.rank(), s);
          for (std::size_t i = list.size(); scattered && i-- > 0;)
            std::copy(a.parameters()[i].gradient.begin(), a.parameters()[i].gradient.end(), list[i].gradient.begin());
          session.ready(600);
          CHECK(session.step().step == static_cast<std::int64_t>(s) + 1);
          expected.step(sum_of_gradients(ranks, s));
        }
        CHECK(*std::ranges::max_element(expected.factor) > 1.5);  // neither 1, nor a bound
        CHECK(*std::ranges::max_element(expected.factor) < 4);
        std::vector<float> w;
        for (auto const& p : list) w.insert(w.end(), p.weight.begin(), p.weight.end());
        CHECK(largest_difference(expected.w, w) < 1e-5);
      });
}

TEST_CASE("every hyperparameter does what it says, and none does nothing") {
  std::vector<sync::one_bit_lamb> all(10, rule);
  all[0].lr = 0.02f;
  all[1].beta1 = 0.5f;
  all[2].beta2 = 0.5f;
  all[3].epsilon = 0.1f;
  all[4].weight_decay = 0;
  all[5].coefficient_beta = 0;
  all[6].min_coefficient = 0.7f;
  all[7].max_coefficient = 0.1f;
  all[8].max_factor = 1.1f;
  all[9].factor_change = 0.01f;
  std::vector<std::vector<float>> ends;
  for (auto const& r : all) {
    auto a = test::odd_arena();
    test::fill(a.weights(), 0, 1000);
    reference expected(r, a);
    auto s = r.init(a.parameters());
    for (std::uint64_t step = 0; step < 12; ++step) {
      fill(a.gradients(), 0, step);
      for (float& g : a.gradients()) g *= 4;
      r.step(a.parameters(), s, {.gradient_factor = 0.25f});
      expected.step(sum_of_gradients(1, step));
    }
    CHECK(largest_difference(expected.w, a.weights()) < 1e-5);
    for (auto const& other : ends) CHECK(largest_difference(expected.w, other) > 1e-3);
    ends.emplace_back(a.weights().begin(), a.weights().end());
  }
}

TEST_CASE("tensors of other magnitudes can share the scale of a bit") {
  // The gradients of one are a hundred times those of the other: with one scale, signs of the smaller average would
  // be worth as much.
  arena a({{"small", {64}}, {"large", {64}}});
  sync::one_bit_lamb const opt{.warmup_steps = 1};
  auto s = opt.init(a.parameters());
  auto const gradients = [&] {
    for (std::size_t i = 0; i < 128; ++i) a.gradients()[i] = (i % 2 ? 1.f : -1.f) * (i < 64 ? 0.01f : 1.f);
  };
  gradients();
  opt.step(a.parameters(), s);
  gradients();
  opt.contribute(a.parameters(), s, 0, a.gradients(), 1);
  for (std::size_t i = 1; i < 64; ++i)
    CHECK(std::abs(a.gradients()[i]) == doctest::Approx(std::abs(a.gradients()[64 + i])));
  // A part of the elements, the same.
  std::vector<float> const all(a.gradients().begin(), a.gradients().end());
  gradients();
  opt.contribute(a.parameters(), s, 60, a.gradients().subspan(60, 9), 1);
  for (std::size_t i = 60; i < 69; ++i) CHECK(a.gradients()[i] == all[i]);
  CHECK(std::abs(a.gradients()[69]) == 1);
}

TEST_CASE("bounds that are reversed are refused") {
  auto a = test::odd_arena();
  auto const refused = [&](sync::one_bit_lamb const& r) {
    CHECK_THROWS_WITH_AS(static_cast<void>(r.init(a.parameters())), doctest::Contains("lower bound"), argument_error);
  };
  refused({.min_coefficient = 2, .max_coefficient = 1});
  refused({.min_factor = 2, .max_factor = 1});
}

TEST_CASE("a tensor without a gradient in the warmup stays where it is, and spoils nothing") {
  arena a({{"idle", {40}}, {"w", {60}}});
  std::ranges::fill(a.weights().first(40), 1.f);
  sync::one_bit_lamb const opt{.lr = 0.02f, .weight_decay = 0, .warmup_steps = 10};
  comm::threads(2).run([&](auto& c) {
    auto mine = a;
    sync::all_reduce const sync{compress::after{10, compress::identity{}, compress::error_feedback{compress::sign{}}}};
    auto session = sync.join(mine.parameters(), opt, c);
    for (int s = 0; s < 60; ++s) {
      session.begin();
      for (std::size_t i = 0; i < 100; ++i)
        mine.gradients()[i] = i < 40 ? (s < 20 ? 0.f : 0.1f) : (mine.weights()[i] - 1) / 2;
      CHECK_FALSE(session.step().skipped);
    }
    for (std::size_t i = 0; i < 100; ++i) CHECK((i < 40 ? mine.weights()[i] == 1 : mine.weights()[i] > 0));
  });
}

TEST_CASE("of doubles") {
  basic_arena<double> a({{"w", {5}}});
  std::ranges::fill(a.weights(), 2.0);
  sync::one_bit_lamb const opt{.lr = 0.1f, .warmup_steps = 5};
  auto s = opt.init(a.parameters());
  for (int step = 0; step < 20; ++step) {
    std::ranges::copy(a.weights(), a.gradients().begin());
    opt.step(a.parameters(), s);
  }
  for (double const w : a.weights()) CHECK(w < 1);
}

}  // namespace sync_one_bit_lamb
