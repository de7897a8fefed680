// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizers that have ranks agree on something else than the gradient: 1-bit Adam, and what 1-bit LAMB has in common
// with it.
#include <algorithm>
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

namespace {

sync::all_reduce const signs{
    .codec = compress::after{2, compress::identity{}, compress::error_feedback{compress::sign{}}}, .bucket_bytes = 500};

/// The weights of each rank after six steps, each with what `disturb(session, arena, rank, step)` does before it.
template <class Rule, class Disturb>
std::vector<std::vector<float>> six_steps(Rule const& opt, int ranks, Disturb const& disturb) {
  std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    test::fill(a.weights(), 0, 1000);
    auto session = signs.join(a.parameters(), opt, c);
    for (std::uint64_t s = 0; s < 6; ++s) {
      disturb(session, a, c.rank(), s);
      session.begin();
      test::fill(a.gradients(), c.rank(), s);
      CHECK_FALSE(session.step().skipped);
    }
    weights[static_cast<std::size_t>(c.rank())].assign(a.weights().begin(), a.weights().end());
  });
  return weights;
}
template <class Rule>
void leaves_no_trace(Rule const& opt) {
  auto const disturb = [](auto& session, arena& a, int rank, std::uint64_t s) {
    if (s <= 2) return;
    session.begin();
    test::fill(a.gradients(), rank, 100 + s);
    session.ready(200);  // and the model threw, on all
    session.begin();
    test::fill(a.gradients(), rank, 200 + s);
    if (rank == 1) a.gradients()[700] = std::numeric_limits<float>::infinity();
    CHECK(session.step().skipped);
  };
  auto const undisturbed = six_steps(opt, 3, [](auto&&...) {});
  CHECK(six_steps(opt, 3, disturb) == undisturbed);
  for (auto const& w : undisturbed) CHECK(w == undisturbed[0]);
}
template <class Rule>
void goes_on(Rule const& opt, int ranks) {
  auto const whole = six_steps(opt, ranks, [](auto&&...) {});
  for (std::uint64_t const at : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{4}}) {
    std::vector<std::vector<float>> weights(whole.size());
    comm::threads(ranks).run([&](auto& c) {
      auto a = test::odd_arena(), b = test::odd_arena();
      test::fill(a.weights(), 0, 1000);
      auto first = signs.join(a.parameters(), opt, c), second = signs.join(b.parameters(), opt, c);
      auto const make = [&](auto& session, arena& of, std::uint64_t s) {
        session.begin();
        test::fill(of.gradients(), c.rank(), s);
        session.step();
      };
      for (std::uint64_t s = 0; s < at; ++s) make(first, a, s);
      auto const copy = [](auto const& from, auto const& to) {
        REQUIRE(from.size() == to.size());
        for (std::size_t i = 0; i < from.size(); ++i) {
          REQUIRE(from[i].name == to[i].name);
          std::ranges::copy(from[i].bytes, to[i].bytes.begin());
        }
      };
      copy(first.replicated(""), second.replicated(""));
      copy(first.own(""), second.own(""));
      std::ranges::copy(a.weights(), b.weights().begin());
      for (std::uint64_t s = at; s < 6; ++s) make(second, b, s);
      weights[static_cast<std::size_t>(c.rank())].assign(b.weights().begin(), b.weights().end());
    });
    CHECK(weights == whole);
  }
}
template <class Rule>
void sends_what_is_predicted(Rule const& opt, int ranks) {
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    auto session = signs.join(a.parameters(), opt, c);
    std::uint64_t sent[4];
    for (std::int64_t s = 0; s < 4; ++s) {
      auto const before = c.traffic();
      session.begin();
      test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
      session.step();
      sent[s] = (c.traffic() - before).bytes_sent;
      CHECK(sent[s] == signs.predict(a.parameters(), c.size(), c.rank(), s).bytes_sent);
    }
    CHECK((sent[0] == sent[1] && sent[2] == sent[3]));
    CHECK((ranks == 1 || 10 * sent[2] < sent[1]));
  });
}

}  // namespace

TEST_CASE("a step that is skipped, or abandoned, leaves the average and the codec's state as they were") {
  leaves_no_trace(sync::one_bit_adam{.lr = 0.01f, .warmup_steps = 2});
  leaves_no_trace(sync::one_bit_lamb{.lr = 0.01f, .warmup_steps = 2});
}
TEST_CASE("a training that is saved and goes on is the one that was not interrupted") {
  for (int const ranks : {1, 3}) {
    goes_on(sync::one_bit_adam{.lr = 0.01f, .warmup_steps = 2}, ranks);
    goes_on(sync::one_bit_lamb{.lr = 0.01f, .warmup_steps = 2}, ranks);
  }
}
TEST_CASE("bytes are those that were predicted, before and behind the warmup") {
  for (int const ranks : {1, 2, 3}) {
    sends_what_is_predicted(sync::one_bit_adam{.lr = 0.01f, .warmup_steps = 2}, ranks);
    sends_what_is_predicted(sync::one_bit_lamb{.lr = 0.01f, .warmup_steps = 2}, ranks);
  }
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
    for (std::size_t i = 0; i < 100; ++i)
      CHECK(std::abs(a.weights()[i] - (i < 85 ? 1.f : 0.f)) < (i < 85 ? 0.5f : 1e-30f));
  });
}

}  // namespace sync_contribute
