// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What goes around a rule: sharpness-aware gradients, a rate that falls on a plateau.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/sam.hpp>
#include <dovetail/optim/schedules/plateau.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

namespace optim_around {

using namespace dovetail;

namespace {

/// Half of the weighted squares of all weights, once for each sample of a batch: its gradient is curvature × w.
struct bowl {
  arena a{{{"w", {3}}, {"b", {5}}}};
  int evaluations = 0;
  bool fails = false;

  parameter_list& parameters() { return a.parameters(); }
  static float curvature(std::size_t i) { return 1.0f + static_cast<float>(i); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (++evaluations % 2 == 0 && fails) throw input_error("the second evaluation fails");
    loss_sums sums{.count = b.size};
    for (std::size_t i = 0; i < a.weights().size(); ++i) {
      float const w = a.weights()[i], g = pass.scale * static_cast<float>(b.size) * curvature(i) * w;
      a.gradients()[i] = pass.accumulate ? a.gradients()[i] + g : g;
      sums.loss += 0.5 * static_cast<double>(b.size) * static_cast<double>(curvature(i) * w * w);
    }
    if (pass.ready) pass.ready(0);
    return sums;
  }
};
data::batch samples(std::int64_t n) { return {n, {}, {}, {}}; }
static_assert(model<optim::sam<bowl>>);

}  // namespace

TEST_CASE("sharpness-aware gradients are those of the place that is rho further up; losses are those at the weights") {
  for (bool const adaptive : {false, true}) {
    CAPTURE(adaptive);
    optim::sam sam{bowl{}, 0.1f, adaptive, 0.02f};
    auto const w = sam.model.a.weights();
    for (std::size_t i = 0; i < 8; ++i) w[i] = 0.3f * static_cast<float>(i) - 1;
    std::vector<float> const before(w.begin(), w.end());
    data::batch const b = samples(4);
    double plain = 0;
    for (std::size_t i = 0; i < 8; ++i) plain += 2 * static_cast<double>(bowl::curvature(i) * w[i] * w[i]);
    std::size_t ready = 0;
    gradient_pass pass{.scale = 0.25f};
    pass.ready = [&](std::size_t) { ++ready; };
    CHECK(sam.gradients(b, pass).loss == doctest::Approx(plain));
    CHECK(ready == 1);  // of the second evaluation only
    CHECK(sam.model.evaluations == 2);
    CHECK(std::vector<float>(w.begin(), w.end()) == before);
    double norm = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      double const t = adaptive ? std::abs(double{before[i]}) + 0.02 : 1;
      norm += std::pow(t * bowl::curvature(i) * before[i], 2);
    }
    for (std::size_t i = 0; i < 8; ++i) {
      double const t = adaptive ? std::abs(double{before[i]}) + 0.02 : 1, c = bowl::curvature(i);
      double const climbed = before[i] + 0.1 * t * t * c * before[i] / std::sqrt(norm);
      CHECK(sam.model.a.gradients()[i] == doctest::Approx(c * climbed).epsilon(1e-5));
    }
    // Accumulated gradients: what was there, and that.
    std::vector<float> const once(sam.model.a.gradients().begin(), sam.model.a.gradients().end());
    pass.accumulate = true;
    sam.gradients(b, pass);
    for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.gradients()[i] == doctest::Approx(2 * once[i]));
  }
}

TEST_CASE("sharpness-aware: rho 0 is the model itself; nothing is lost when the second evaluation throws") {
  optim::sam sam{bowl{}, 0.0f};
  bowl alone;
  for (std::size_t i = 0; i < 8; ++i) sam.model.a.weights()[i] = alone.a.weights()[i] = static_cast<float>(i) - 3;
  sam.gradients(samples(2), gradient_pass{});
  alone.gradients(samples(2), gradient_pass{});
  for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.gradients()[i] == alone.a.gradients()[i]);
  sam.rho = 1;
  sam.model.fails = true;
  CHECK_THROWS_AS(sam.gradients(samples(2), gradient_pass{}), input_error);
  for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.weights()[i] == static_cast<float>(i) - 3);
  sam.model.fails = false;
  for (float& x : sam.model.a.weights()) x = 0;  // no way up: the gradient is zero
  sam.gradients(samples(2), gradient_pass{});
  for (float const g : sam.model.a.gradients()) CHECK(g == 0);
  for (float& x : sam.model.a.weights()) x = std::numeric_limits<float>::quiet_NaN();
  sam.gradients(samples(2), gradient_pass{});
  CHECK(std::isnan(sam.model.a.gradients()[0]));  // for the optimizer to see
}

TEST_CASE("a rate that falls on a plateau is shared by its copies, saved, and refuses what could not fall") {
  optim::reduce_on_plateau rate{{.initial = 1, .factor = 0.5f, .patience = 1}};
  optim::sgd const rule{.lr = rate};
  arena a({{"w", {1}}});
  auto state = rule.init(a.parameters());
  a.gradients()[0] = 1;
  rule.step(a.parameters(), state);
  CHECK(a.weights()[0] == -1);
  CHECK(!rate.observe(2));
  CHECK(!rate.observe(2));
  CHECK(rate.observe(std::numeric_limits<double>::quiet_NaN()));
  rule.step(a.parameters(), state);
  CHECK(a.weights()[0] == -1.5f);
  optim::reduce_on_plateau other{{.initial = 1, .factor = 0.5f, .patience = 1}};
  auto const from = rate.tensors("p."), to = other.tensors("p.");
  for (std::size_t i = 0; i < from.size(); ++i)
    std::copy(from[i].bytes.begin(), from[i].bytes.end(), to[i].bytes.begin());
  CHECK(other(0) == 0.5f);
  optim::reduce_on_plateau higher{{.initial = 1, .patience = 0, .direction = optim::better::higher}};
  CHECK(!higher.observe(0.5));
  CHECK(!higher.observe(0.6));
  CHECK(higher.observe(0.6));
  CHECK_THROWS_AS(optim::reduce_on_plateau({.factor = 1}), argument_error);
  // A state that cannot be.
  for (auto const* what : {"p.bad", "p.cooldown"})
    for (std::int64_t const count : {std::numeric_limits<std::int64_t>::max(), std::int64_t{-1}}) {
      optim::reduce_on_plateau damaged;
      for (auto& t : damaged.tensors("p."))
        if (t.name == what) std::memcpy(t.bytes.data(), &count, sizeof count);
      CHECK_THROWS_AS(damaged.observe(1), argument_error);
    }
}

TEST_CASE("a plateau is seen in measurements of either sign, and rates fall however small they are") {
  // Progress is more than a hundredth of the best's size, whatever its sign: PyTorch's best * (1 - threshold) would ask
  // a negative one to get worse.
  auto const progress = [](optim::better direction, double best, double next) {
    optim::reduce_on_plateau rate{
        {.initial = 1, .factor = 0.5f, .patience = 0, .threshold = 0.01f, .direction = direction}};
    CHECK(!rate.observe(best));
    return !rate.observe(next);
  };
  using optim::better;
  CHECK(progress(better::lower, -100, -101.5));
  CHECK(!progress(better::lower, -100, -100.5));
  CHECK(!progress(better::lower, -100, -99.5));
  CHECK(progress(better::lower, 100, 98.5));
  CHECK(!progress(better::lower, 100, 99.5));
  CHECK(progress(better::higher, -100, -98.5));
  CHECK(!progress(better::higher, -100, -99.5));
  CHECK(!progress(better::higher, -100, -100.5));
  CHECK(progress(better::higher, 100, 101.5));
  CHECK(!progress(better::higher, 0, 0));
  CHECK(progress(better::lower, 0, -1e-300));
  double const infinity = std::numeric_limits<double>::infinity();
  CHECK(!progress(better::lower, -infinity, -1e300));
  {
    optim::reduce_on_plateau rate{{.patience = 0}};
    CHECK(rate.observe(infinity));  // no progress, from the beginning
    CHECK(!rate.observe(1e300));
  }
  optim::reduce_on_plateau small{{.initial = 1e-8f, .factor = 0.5f, .patience = 0}};
  small.observe(1);
  for (int i = 1; i <= 4; ++i) {
    CHECK(small.observe(1));
    CHECK(small(0) == doctest::Approx(1e-8 * std::pow(0.5, i)));
  }
  optim::reduce_on_plateau floored{{.initial = 1e-8f, .factor = 0.5f, .patience = 0, .smallest = 4e-9f}};
  floored.observe(1);
  CHECK(floored.observe(1));
  CHECK(floored.observe(1));
  CHECK(!floored.observe(1));
  CHECK(floored(0) == 4e-9f);
}

namespace {

/// One weight that jumps from 1 to `to` and stays; its average, `steps` later.
template <class Average>
float settled(Average const& average, float to, int steps) {
  optim::chain const rule{optim::sgd{.lr = 1}, average};
  arena a({{"w", {1}}});
  a.weights()[0] = 1;
  auto state = rule.init(a.parameters());
  a.gradients()[0] = 0;
  rule.step(a.parameters(), state);
  a.weights()[0] = to;
  for (int t = 1; t < steps; ++t) rule.step(a.parameters(), state);
  float out = 0;
  optim::averaged_weights(rule, a.parameters(), state, {&out, 1});
  return out;
}

}  // namespace

TEST_CASE("an average of weights goes on moving where a step is less than a float's last digit") {
  for (float const to : {1.002f, 0.998f, 1.0001f}) {
    CAPTURE(to);
    for (float const decay : {0.999f, 0.9999f, 0.99999f}) {
      CAPTURE(decay);
      int const steps = static_cast<int>(12 / (1 - static_cast<double>(decay)));
      double const missing = static_cast<double>(to - 1) * std::pow(static_cast<double>(decay), steps - 1);
      CHECK(settled(optim::ema_weights{decay}, to, steps) ==
            doctest::Approx(static_cast<double>(to) - missing).epsilon(1e-7));
    }
    // Of n steps the first is 1 and the others are `to`.
    for (int const n : {100, 100'000, 1'000'000})
      CHECK(settled(optim::swa_weights{}, to, n) ==
            doctest::Approx(static_cast<double>(to) - static_cast<double>(to - 1) / n).epsilon(1e-7));
  }
}

TEST_CASE("schedule-free: the average is that of double precision, for every share of it in the weights") {
  for (float const beta : {0.0f, 1e-6f, 1e-3f, 0.3f, 0.5f, 0.9f, 0.98f, 1.0f}) {
    CAPTURE(beta);
    optim::schedule_free_sgd const rule{.lr = 0.02f, .beta = beta, .warmup = 5};
    arena a({{"w", {3}}});
    double z[3], x[3], sum = 0;
    for (std::size_t i = 0; i < 3; ++i) z[i] = x[i] = a.weights()[i] = 0.5f * static_cast<float>(i) - 0.3f;
    auto state = rule.init(a.parameters());
    std::vector<float> out(3);
    for (int t = 1; t <= 2000; ++t) {
      double const rate = static_cast<double>(rule.lr) * std::min(1.0, t / 5.0), c = rate * rate / (sum += rate * rate);
      for (std::size_t i = 0; i < 3; ++i) {
        float const g = a.weights()[i] - 0.7f + 0.1f * std::sin(static_cast<float>(t));
        a.gradients()[i] = g;
        z[i] -= rate * static_cast<double>(g);
        x[i] += c * (z[i] - x[i]);
      }
      rule.step(a.parameters(), state);
    }
    optim::averaged_weights(rule, a.parameters(), state, out);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(out[i] == doctest::Approx(x[i]).epsilon(2e-6));
      CHECK(a.weights()[i] ==
            doctest::Approx((1 - static_cast<double>(beta)) * z[i] + static_cast<double>(beta) * x[i]).epsilon(2e-6));
    }
  }
}

TEST_CASE("AdEMAMix warms up without a first moment: the slow average begins with no half-life at all") {
  // A half-life that grows linearly from 0 to that of beta3: ln b3 = ln beta3 / (t / warmup).
  for (float const beta3 : {0.9999f, 0.5f, 0.0f}) {
    CAPTURE(beta3);
    constexpr std::int64_t warmup = 6;
    optim::ademamix const rule{
        .lr = 0.1f, .beta1 = 0, .beta2 = 0.9f, .beta3 = beta3, .alpha = 4, .warmup = warmup, .epsilon = 1e-8f};
    arena a({{"w", {1}}});
    auto state = rule.init(a.parameters());
    double w = 0, v = 0, n = 0;
    for (int t = 1; t <= 10; ++t) {
      float const g = a.gradients()[0] = 1.0f / static_cast<float>(t) - 0.3f;
      auto const u = static_cast<double>(g);
      double const done = std::min(1.0, static_cast<double>(t) / warmup);
      double const b2 = static_cast<double>(rule.beta2), b3 = std::pow(static_cast<double>(beta3), 1 / done);
      n = b3 * n + (1 - b3) * u;
      v = b2 * v + (1 - b2) * u * u;
      w -= 0.1 * (u + 4 * done * n) / (std::sqrt(v / (1 - std::pow(b2, t))) + 1e-8);
      rule.step(a.parameters(), state);
      CHECK(static_cast<double>(a.weights()[0]) == doctest::Approx(w).epsilon(1e-5));
    }
  }
}

}  // namespace optim_around
