// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Batches that grow while a training runs, and the noise that they may follow.
#include <cmath>
#include <cstdint>
#include <map>
#include <mutex>
#include <random>
#include <vector>

#include <dovetail/optim/schedules/batch_schedule.hpp>

#include <doctest/doctest.h>

#include "small.hpp"

namespace train_batches {

using namespace dovetail;

TEST_CASE("the noise scale of gradients whose signal and noise are known") {
  // Gradients of 50 numbers: a mean of squared norm 4, noise of variance 3 in each number of one sample's.
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  double const signal = 4, variance = 3;
  auto const squares = [&](double batch) {
    double sum = 0;
    for (int i = 0; i < 50; ++i) {
      double const g = std::sqrt(signal / 50) + normal(random) * std::sqrt(variance / batch);
      sum += g * g;
    }
    return sum;
  };
  optim::noise_scale n(0.999);
  CHECK(!n.known());
  CHECK(n.value() == 0);
  for (int t = 0; t < 4000; ++t) n.add(8, squares(8), 64, squares(64));
  CHECK(n.variance() == doctest::Approx(50 * variance).epsilon(0.05));
  CHECK(n.squared_gradient() == doctest::Approx(signal).epsilon(0.1));
  CHECK(n.value() == doctest::Approx(50 * variance / signal).epsilon(0.12));
  double const before = n.value();
  n.add(8, std::nan(""), 64, 1);
  CHECK(n.value() == before);
  CHECK_THROWS_AS(n.add(8, 1, 8, 1), argument_error);
}

TEST_CASE("batch schedules are functions of what is known") {
  optim::increase_batch const grow{.initial = 2, .factor = 3, .every = 10, .most = 50};
  std::map<std::int64_t, std::int64_t> const expected{{0, 2}, {9, 2}, {10, 6}, {25, 18}, {30, 50}, {1000000, 50}};
  for (auto const& [step, batches] : expected) CHECK(grow({.step = step}) == batches);
  optim::noise_batch const noise{.most = 10};
  CHECK(noise({}) == 1);
  CHECK(noise({.micro_batch = 32, .variance = 600, .squared_gradient = 6}) == 4);
  CHECK(noise({.micro_batch = 32, .variance = 1e9, .squared_gradient = 0}) == 10);
  optim::coupled_batch const coupled{.most = 10};
  CHECK(coupled({}) == 1);
  CHECK(coupled({.micro_batch = 32, .variance = 600, .squared_gradient = 6, .loss = 0.5, .lr = 0.1}) == 4);
}

namespace {

struct seen {
  std::vector<std::int64_t> samples;
  std::vector<double> noise;
  std::uint64_t weights = 0;
};

seen train_with(train::fit_options options, int ranks, sync::all_reduce<> const& sync = {},
                std::vector<std::int64_t> const& stops = {}) {
  seen s;
  options.on_step = [&](train::step_record const& r) {
    s.samples.push_back(r.samples);
    s.noise.push_back(r.noise_scale);
  };
  auto const make = [&] {
    return train::trainer{test::initialized<test::images_net_without_noise>(), nn::softmax_cross_entropy{},
                          optim::adamw{.lr = 0.01f}, sync, comm::threads{ranks}};
  };
  auto t = make();
  for (auto const stop : stops) {  // interrupted, and gone on with by another trainer
    auto part = options;
    part.steps = stop;
    t.fit(test::images(), part);
    auto next = make();
    next.restore(t.state());
    t = std::move(next);
  }
  t.fit(test::images(), options);
  s.weights = test::digest(t.model().parameters());
  return s;
}

}  // namespace

TEST_CASE("a batch that grows: as many samples as the schedule says, whole epochs, the bits of fixed batches") {
  // 61 samples in micro-batches of 2 x 4: 8 in an epoch, the last one smaller.
  train::fit_options options{.batch = 4, .steps = 6, .accumulate_at = optim::increase_batch{.every = 2}};
  auto const grown = train_with(options, 2);
  CHECK(grown.samples == std::vector<std::int64_t>{8, 8, 16, 16, 29, 32});
  options.steps = 0;
  options.epochs = 3;
  auto const epochs = train_with(options, 2);
  std::int64_t sum = 0;
  for (auto const n : epochs.samples) sum += n;
  CHECK(sum >= 3 * 61);
  CHECK(sum - epochs.samples.back() < 3 * 61);
  auto const fixed = train_with({.batch = 4, .steps = 5, .accumulate = 2}, 2);
  auto const same = train_with({.batch = 4, .steps = 5, .accumulate_at = [](auto const&) { return 2; }}, 2);
  CHECK(fixed.weights == same.weights);
  CHECK_THROWS_WITH_AS(train_with({.steps = 2, .accumulate_at = [](auto const&) { return 0; }}, 1),
                       doctest::Contains("accumulate_at gave 0"), argument_error);
}

TEST_CASE("a batch that follows the measured noise: equal on all ranks, unchanged by an interruption") {
  sync::all_reduce<> const measuring{.measure_noise = true};
  train::fit_options const options{
      .batch = 4, .steps = 14, .accumulate_at = optim::noise_batch{.share = 10, .most = 4}};
  auto const whole = train_with(options, 3, measuring);
  CHECK(whole.noise.back() > 0);
  CHECK(whole.samples.back() > 12);  // it has grown
  CHECK(train_with(options, 3, measuring).weights == whole.weights);
  CHECK(train_with(options, 3, measuring, {5, 9}).weights == whole.weights);
  train::fit_options coupled = options;
  coupled.accumulate_at = optim::coupled_batch{.most = 4};
  CHECK(train_with(coupled, 3, measuring, {7}).weights == train_with(coupled, 3, measuring).weights);
  CHECK_THROWS_WITH_AS(train_with(options, 1, measuring), doctest::Contains("measure_noise compares"), argument_error);
}

}  // namespace train_batches
