// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An optimizer that has ranks agree on something else than the gradient: 1-bit Adam.
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include <doctest/doctest.h>

#include <dovetail/dovetail.hpp>

#include "gradients.hpp"

namespace sync_contribute {

using namespace dovetail;

static_assert(optim::optimizer_traits<sync::one_bit_adam>::contributes);
static_assert(!optim::optimizer_traits<optim::adamw>::contributes);

namespace {

sync::one_bit_adam const rule{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.9f, .weight_decay = 0.1f, .warmup_steps = 3};

/// The rule in doubles, on the sum of all ranks' gradients.
struct reference {
  std::vector<double> w, m, v;
  int t = 0;
  explicit reference(std::span<float const> weights) : w(weights.begin(), weights.end()), m(w.size()), v(w.size()) {}
  void step(std::vector<double> const& g) {
    ++t;
    double const b1 = static_cast<double>(rule.beta1), b2 = static_cast<double>(rule.beta2);
    double const decay = static_cast<double>(rule.weight_decay), epsilon = static_cast<double>(rule.epsilon);
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = b1 * m[i] + (1 - b1) * g[i];
      if (t <= rule.warmup_steps) v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
      w[i] -= static_cast<double>(0.01f) * (m[i] / (std::sqrt(v[i]) + epsilon) + decay * w[i]);
    }
  }
};
std::vector<double> sum_of_gradients(int ranks, std::uint64_t step) {
  auto a = test::odd_arena();
  std::vector<double> sum(a.gradients().size());
  for (int r = 0; r < ranks; ++r) {
    test::fill(a.gradients(), r, step);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(a.gradients()[i]);
  }
  return sum;
}
double largest_difference(std::vector<double> const& a, std::span<float const> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - static_cast<double>(b[i])));
  return most;
}

}  // namespace

TEST_CASE("what ranks contribute adds up to the average of gradients, in buckets, apart in memory, or alone") {
  for (int const ranks : {1, 2, 3, 5}) {
    for (bool const scattered : {false, true})
      comm::threads(ranks).run([&](auto& c) {
        auto a = test::odd_arena();
        test::fill(a.weights(), 0, 1000);
        std::vector<std::vector<float>> memory;
        memory.reserve(2 * a.parameters().size());
        parameter_list apart;
        for (auto& p : a.parameters()) {
          auto& w = memory.emplace_back(p.weight.begin(), p.weight.end());
          apart.add(p.name, w, memory.emplace_back(p.size()), p.shape);
        }
        auto& list = scattered ? apart : a.parameters();
        reference expected(a.weights());
        auto session = sync::all_reduce{.bucket_bytes = 500}.join(list, rule, c);
        for (std::uint64_t s = 0; s < 8; ++s) {
          session.begin();
          test::fill(a.gradients(), c.rank(), s);
          for (std::size_t i = list.size(); scattered && i-- > 0;)
            std::copy(a.parameters()[i].gradient.begin(), a.parameters()[i].gradient.end(), list[i].gradient.begin());
          session.ready(600);
          CHECK(session.step().step == static_cast<std::int64_t>(s) + 1);
          expected.step(sum_of_gradients(ranks, s));
        }
        std::vector<float> w;
        for (auto const& p : list) w.insert(w.end(), p.weight.begin(), p.weight.end());
        CHECK(largest_difference(expected.w, w) < 2e-6);
      });
  }
  // Without a session: gradients, and a factor.
  auto a = test::odd_arena();
  test::fill(a.weights(), 0, 1000);
  reference expected(a.weights());
  auto state = rule.init(a.parameters());
  for (std::uint64_t s = 0; s < 8; ++s) {
    test::fill(a.gradients(), 0, s);
    for (float& g : a.gradients()) g *= 4;
    rule.step(a.parameters(), state, {.gradient_factor = 0.25f});
    expected.step(sum_of_gradients(1, s));
  }
  CHECK(largest_difference(expected.w, a.weights()) < 2e-6);
  CHECK(largest_difference(expected.m, state.slot(0)) < 1e-6);
  CHECK(largest_difference(expected.v, state.slot(1)) < 1e-6);
}

TEST_CASE("a step that is skipped, or abandoned, leaves the average and the codec's state as they were") {
  sync::all_reduce const sync{
      .codec = compress::after{2, compress::identity{}, compress::error_feedback{compress::sign{}}},
      .bucket_bytes = 500};
  auto const train = [&](bool disturbed) {
    std::vector<float> weights;
    comm::threads(3).run([&](auto& c) {
      auto a = test::odd_arena();
      test::fill(a.weights(), 0, 1000);
      auto session = sync.join(a.parameters(), sync::one_bit_adam{.lr = 0.01f, .warmup_steps = 2}, c);
      for (std::uint64_t s = 0; s < 6; ++s) {
        if (disturbed && s > 2) {
          session.begin();
          test::fill(a.gradients(), c.rank(), 100 + s);
          session.ready(200);  // and the model threw, on all
          session.begin();
          test::fill(a.gradients(), c.rank(), 200 + s);
          if (c.rank() == 1) a.gradients()[700] = std::numeric_limits<float>::infinity();
          CHECK(session.step().skipped);
        }
        session.begin();
        test::fill(a.gradients(), c.rank(), s);
        CHECK_FALSE(session.step().skipped);
      }
      if (c.rank() == 2) weights.assign(a.weights().begin(), a.weights().end());
    });
    return weights;
  };
  CHECK(train(true) == train(false));
}

TEST_CASE("logistic regression with one bit an element of the average behind the warmup") {
  // 64 features of which 8 tell the class; each rank has samples of its own.
  constexpr std::size_t features = 64, samples = 300;
  auto const train = [&](auto const& sync, auto const& opt) {
    double loss = 0;
    std::mutex mutex;
    comm::threads(3).run([&](auto& c) {
      arena a({{"w", {static_cast<std::int64_t>(features)}}});
      std::vector<float> x(samples * features), y(samples);
      random_stream const random{11, 0, 0, static_cast<std::uint32_t>(c.rank())};
      for (std::size_t i = 0; i < samples; ++i) {
        double score = 0;
        for (std::size_t j = 0; j < features; ++j) {
          x[i * features + j] = 2 * random.uniform(i * features + j) - 1;
          if (j % 8 == 0) score += (j % 16 == 0 ? 1 : -1) * static_cast<double>(x[i * features + j]);
        }
        y[i] = score > 0 ? 1.f : 0.f;
      }
      auto session = sync.join(a.parameters(), opt, c);
      for (int s = 0; s < 400; ++s) {
        session.begin();
        double mine = 0;
        auto const g = a.gradients();
        std::fill(g.begin(), g.end(), 0.f);
        for (std::size_t i = 0; i < samples; ++i) {
          double z = 0;
          for (std::size_t j = 0; j < features; ++j)
            z += static_cast<double>(a.weights()[j]) * static_cast<double>(x[i * features + j]);
          double const p = 1 / (1 + std::exp(-z)), t = static_cast<double>(y[i]);
          mine -= std::log(t > 0.5 ? p : 1 - p);
          for (std::size_t j = 0; j < features; ++j)
            g[j] += static_cast<float>((p - t) * static_cast<double>(x[i * features + j]) / (3.0 * samples));
        }
        session.step();
        if (s == 399) {
          std::lock_guard const lock(mutex);
          loss += mine / (3.0 * samples);
        }
      }
    });
    return loss;
  };
  sync::one_bit_adam const opt{.lr = 0.03f, .warmup_steps = 60};
  double const dense = train(sync::all_reduce{}, opt);
  double const one_bit = train(
      sync::all_reduce{compress::after{60, compress::identity{}, compress::error_feedback{compress::sign{}}}}, opt);
  MESSAGE("loss dense " << dense << ", one bit " << one_bit);
  CHECK(dense < 0.2);
  CHECK(one_bit < dense * 1.1);
}

TEST_CASE("what cannot be said of contributions is refused") {
  comm::threads(2).run([](auto& c) {
    auto a = test::odd_arena();
    auto session = sync::all_reduce{}.join(a.parameters(), rule, c);
    CHECK_THROWS_WITH_AS(session.step({.gradient_factor = 0.5f}), doctest::Contains("gradient factor of 0.5"),
                         argument_error);
    CHECK_THROWS_WITH_AS((sync::all_reduce{.measure_noise = true}.join(a.parameters(), rule, c)),
                         doctest::Contains("measure_noise"), argument_error);
    auto s = rule.init(a.parameters());
    CHECK_THROWS_AS(static_cast<void>(sync::one_bit_adam{.warmup_steps = 0}.init(a.parameters())), argument_error);
  });
}

TEST_CASE("an element without a gradient in the warmup stays where it is, and spoils nothing") {
  comm::threads(2).run([](auto& c) {
    arena a({{"w", {100}}});
    sync::all_reduce const sync{compress::after{10, compress::identity{}, compress::error_feedback{compress::sign{}}}};
    auto session = sync.join(a.parameters(), sync::one_bit_adam{.lr = 0.05f, .warmup_steps = 10}, c);
    for (int s = 0; s < 100; ++s) {
      session.begin();
      for (std::size_t i = 0; i < 100; ++i)  // those from 85 on have none for a while
        a.gradients()[i] = i < 85 || s > 40 ? (a.weights()[i] - 1) / 2 : 0.f;
      session.step();
    }
    for (std::size_t i = 0; i < 100; ++i) CHECK(std::abs(a.weights()[i] - (i < 85 ? 1.f : 0.f)) < (i < 85 ? 0.5f : 1e-30f));
  });
}

}  // namespace sync_contribute
