// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Ranks that train apart and are averaged: local SGD, and SWAP, where they do so from what all have trained together.
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "small.hpp"

namespace train_local_sgd {

using namespace dovetail;

namespace {

using values = std::vector<float>;

values weights_in(parameter_list const& list) {
  values all;
  for (auto const& p : list) all.insert(all.end(), p.weight.begin(), p.weight.end());
  return all;
}
/// The weights that rank `rank` goes on with, out of a saved state.
template <class Model>
Model member(Model model, io::saved_state const& s, int rank) {
  s.restore(train::weights_of(model.parameters()), "rank" + std::to_string(rank) + ".weights.");
  return model;
}

template <class Net>
auto model_of(std::uint64_t seed = 3) {
  return nn::with_loss{test::initialized<Net>(seed), nn::softmax_cross_entropy{}};
}

optim::adamw const rule{.lr = optim::cosine{.initial = 0.01f, .steps = 30}};

/// One rank's training by hand: neither a trainer nor a loader nor a communicator.
template <class Model, class Data>
Model by_hand(Model model, Data const& data, int rank, std::int64_t steps, train::fit_options const& o) {
  auto state = rule.init(model.parameters());
  std::int64_t const per_epoch = (data.size() + o.batch - 1) / o.batch;
  std::vector<std::int64_t> order;
  data::batch_buffer buffer;
  for (std::int64_t s = 0, b = 0; s < steps; ++s) {
    auto const part = [&](std::int64_t at) {
      data::epoch_order(data.size(), o.seed, at / per_epoch, true, order, static_cast<std::uint32_t>(rank));
      auto const first = at % per_epoch * o.batch;
      return std::span<std::int64_t const>(order).subspan(
          static_cast<std::size_t>(first), static_cast<std::size_t>(std::min(o.batch, data.size() - first)));
    };
    std::size_t count = 0;
    for (std::int64_t m = 0; m < o.accumulate; ++m) count += part(b + m).size();
    for (std::int64_t m = 0; m < o.accumulate; ++m, ++b) {
      data.load(part(b), buffer);
      auto const predictions = static_cast<std::int64_t>(count) * data.predictions_per_sample();
      model.gradients(buffer.view(), {.scale = 1.f / static_cast<float>(predictions),
                                      .accumulate = m > 0,
                                      .seed = o.seed,
                                      .step = static_cast<std::uint64_t>(b),
                                      .rank = static_cast<std::uint32_t>(rank),
                                      .threads = 1});
    }
    rule.step(model.parameters(), state);
  }
  return model;
}

/// Gradients of one rank are no numbers from one micro-batch to another.
template <class Inner>
struct poisoned {
  Inner inner;
  std::uint32_t rank = 0;
  std::uint64_t from = 0, to = 0;

  parameter_list& parameters() { return inner.parameters(); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    auto const sums = inner.gradients(b, pass);
    if (pass.rank == rank && pass.step >= from && pass.step < to) parameters()[0].gradient[0] = NAN;
    return sums;
  }
};

}  // namespace

TEST_CASE("after fit the model is the mean of models trained by hand, one for each rank, bit for bit") {
  auto const check = [](auto const& start, auto const& data, std::int64_t accumulate) {
    for (int ranks : {1, 2, 3, 4}) {
      CAPTURE(ranks);
      train::fit_options const options{.batch = 7, .steps = 14, .accumulate = accumulate, .seed = 5, .threads = 1};
      train::trainer trainer{start, rule, sync::local_sgd{}, comm::threads{ranks}};
      auto const report = trainer.fit(data, options);
      values mean;
      for (int r = 0; r < ranks; ++r) {
        auto expected = by_hand(start, data, r, options.steps, options);
        auto const w = weights_in(expected.parameters());
        CHECK(weights_in(member(start, trainer.state(), r).parameters()) == w);
        if (r == 0) mean.assign(w.size(), 0.f);
        for (std::size_t i = 0; i < w.size(); ++i) mean[i] = r ? mean[i] + w[i] : w[i];
      }
      for (float& w : mean) w /= static_cast<float>(ranks);
      CHECK(weights_in(trainer.model().parameters()) == mean);
      // One mean is all that was exchanged.
      auto list = trainer.model().parameters();
      CHECK(report.traffic == sync::local_sgd{}.predict(list, ranks, 0));
      if (ranks == 1) {  // alone it is any training
        train::trainer alone{start, rule, sync::all_reduce{}, comm::self{}};
        CHECK(alone.fit(data, options).losses == report.losses);
        CHECK(weights_in(alone.model().parameters()) == mean);
      }
    }
  };
  check(model_of<test::images_net>(), test::images(), 1);  // 61 samples: the last batch of an epoch has 5
  check(model_of<test::images_net>(), test::images(), 2);
  check(model_of<test::text_net>(), test::text(), 1);
}

TEST_CASE("what was trained together goes on apart: every rank sees all samples of an epoch") {
  comm::threads const world(3);
  train::trainer together{model_of<test::images_net>(), rule, sync::all_reduce{}, world};
  together.fit(test::images(), {.batch = 10, .epochs = 2});
  train::trainer apart{together.model(), rule, sync::local_sgd{}, world};
  std::vector<std::int64_t> samples, epochs;
  auto const report = apart.fit(test::images(), {.batch = 20, .epochs = 2, .on_step = [&](train::step_record const& r) {
                                                   samples.push_back(r.samples);
                                                   epochs.push_back(r.epoch);
                                                 }});
  CHECK(report.samples == 3 * 2 * 61);
  CHECK(samples == std::vector<std::int64_t>{60, 60, 60, 3, 60, 60, 60, 3});
  CHECK(epochs == std::vector<std::int64_t>{0, 0, 0, 0, 1, 1, 1, 1});
  // Evaluation is that of the mean, on every rank: the parts add up to what one rank finds.
  train::trainer alone{apart.model(), rule, sync::all_reduce{}, comm::self{}};
  auto const parts = apart.evaluate(test::images(40), 7), whole = alone.evaluate(test::images(40), 7);
  CHECK(parts.count == whole.count);
  CHECK(parts.correct == whole.correct);
  CHECK(parts.loss == doctest::Approx(whole.loss).epsilon(1e-6));
  // The dataset is not divided, so neither is the batch that it allows.
  CHECK_NOTHROW(apart.fit(test::images(), {.batch = 61, .steps = 9}));
  CHECK_THROWS_WITH_AS(apart.fit(test::images(), {.batch = 62, .steps = 11}),
                       doctest::Contains("use a batch of at most 61"), argument_error);
}

TEST_CASE("interrupted and resumed equals uninterrupted, bit for bit, however it was interrupted") {
  auto const start = model_of<test::images_net>();
  train::fit_options const options{.batch = 4, .steps = 23, .accumulate = 2, .seed = 9, .log_every = 4};
  for (int ranks : {1, 2, 3})
    for (std::int64_t every : {0, 5}) {
      CAPTURE(ranks);
      CAPTURE(every);
      auto const make = [&] {
        return train::trainer{start, rule, sync::local_sgd{.every = every}, comm::threads{ranks}};
      };
      auto whole = make();
      std::vector<io::saved_state> saved;
      auto saving = options;
      saving.save_every = 7;
      saving.on_save = [&](io::saved_state& s) { saved.push_back(s); };
      auto const expected = whole.fit(test::images(), options);
      auto const check = [&](auto& t, std::vector<double> losses, train::fit_options const& o) {
        auto const rest = t.fit(test::images(), o);
        losses.insert(losses.end(), rest.losses.begin(), rest.losses.end());
        CHECK(losses == expected.losses);
        CHECK(test::digest(t.model().parameters()) == test::digest(whole.model().parameters()));
        CHECK(t.state() == whole.state());  // weights, optimizers and position
      };
      auto writer = make();
      check(writer, {}, saving);  // checkpoints on the way change nothing
      REQUIRE(saved.size() == 4);
      CHECK(saved.back() == whole.state());
      for (std::size_t i = 0; i < 4; ++i) {  // the last has no step left
        auto t = make();
        t.model().network.initialize(1234);
        t.restore(saved[i]);
        auto const done = std::min<std::ptrdiff_t>(7 * static_cast<std::ptrdiff_t>(i + 1), 23);
        check(t, {expected.losses.begin(), expected.losses.begin() + done}, options);
        // The weights in a checkpoint are the mean of those that ranks go on with.
        values mean = weights_in(member(start, saved[i], 0).parameters());
        for (int r = 1; r < ranks; ++r) {
          auto const w = weights_in(member(start, saved[i], r).parameters());
          for (std::size_t k = 0; k < w.size(); ++k) mean[k] += w[k];
          CHECK((w == weights_in(member(start, saved[i], 0).parameters())) == false);
        }
        for (float& w : mean) w /= static_cast<float>(ranks);
        auto of_file = start;
        saved[i].restore(train::weights_of(of_file.parameters()));
        CHECK(weights_in(of_file.parameters()) == mean);
      }
      auto part = options;
      part.steps = 9;
      auto t = make();
      auto const first = t.fit(test::images(), part);  // an end that was not the last
      check(t, first.losses, options);
      std::atomic<bool> stop = true;
      auto stopping = options;
      stopping.stop = &stop;
      auto u = make();
      auto const cut = u.fit(test::images(), stopping);
      CHECK(cut.stopped);
      CHECK(cut.step == 4);
      check(u, cut.losses, options);
    }
}

TEST_CASE("ranks that train apart go on as many, or from their mean") {
  auto const start = model_of<test::images_net>();
  train::trainer three{start, rule, sync::local_sgd{}, comm::threads{3}};
  three.fit(test::images(), {.batch = 4, .steps = 5});
  train::trainer two{start, rule, sync::local_sgd{}, comm::threads{2}};
  two.restore(three.state());
  CHECK(test::digest(two.model().parameters()) == test::digest(three.model().parameters()));
  CHECK_THROWS_WITH_AS(two.fit(test::images(), {.batch = 4, .steps = 9}),
                       doctest::Contains("of 3 ranks that train apart, this one has 2"), checkpoint_error);
  // What trained together has no weights of single ranks.
  train::trainer together{start, rule, sync::all_reduce{}, comm::threads{2}};
  together.fit(test::images(), {.batch = 4, .steps = 5});
  train::trainer apart{start, rule, sync::local_sgd{}, comm::threads{2}};
  apart.restore(together.state());
  CHECK_THROWS_AS(apart.fit(test::images(), {.batch = 4, .steps = 9}), checkpoint_error);
}

TEST_CASE("a rank whose gradient is not finite skips alone; one that stays so ends the training for all, by name") {
  poisoned model{model_of<test::images_net>(), 1, 4, 7};
  for (std::int64_t every : {0, 3}) {
    train::trainer some{model, rule, sync::local_sgd{.every = every}, comm::threads{3}};
    std::vector<bool> skipped;
    auto const report = some.fit(
        test::images(), {.batch = 4, .steps = 12, .log_every = 5, .max_skipped = 4, .on_step = [&](auto const& r) {
                           skipped.push_back(r.skipped);
                         }});
    CHECK(report.skipped == 3);
    CHECK(skipped == std::vector<bool>{0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0});
    for (float w : weights_in(some.model().parameters())) REQUIRE(std::isfinite(w));
    auto const steps_of = [&](int rank) {  // that the optimizer made
      std::int64_t n = 0;
      auto const* p = some.state().find("rank" + std::to_string(rank) + ".optimizer.step");
      REQUIRE(p);
      std::memcpy(&n, p->bytes.data(), sizeof n);
      return n;
    };
    CHECK(steps_of(0) == 12);
    CHECK(steps_of(1) == 9);
  }
  model.to = 1000;
  for (std::int64_t log_every : {1, 5, 100}) {
    train::trainer stuck{model, rule, sync::local_sgd{}, comm::threads{3}};
    int saves = 0;
    CHECK_THROWS_WITH_AS(
        stuck.fit(test::images(), {.batch = 4,
                                   .steps = 30,
                                   .log_every = log_every,
                                   .max_skipped = 4,
                                   .on_save = [&](io::saved_state&) { FAIL("the last good state would be lost"); },
                                   .on_give_up = [&](io::saved_state&) { ++saves; }}),
        doctest::Contains("the gradient of rank 1 was not finite for "), numeric_error);
    CHECK(saves == 1);
  }
}

TEST_CASE("batches that grow grow alike on all ranks, also where one has skipped steps and its rate lags behind") {
  poisoned const model{model_of<test::images_net>(), 1, 2, 5};
  train::trainer trainer{model, rule, sync::local_sgd{}, comm::threads{3}};
  std::vector<double> rates;
  auto const report =
      trainer.fit(test::images(), {.batch = 4,
                                   .epochs = 3,
                                   .accumulate_at = [](optim::batch_facts const& f) { return f.lr < 0.0098 ? 2 : 1; },
                                   .on_step = [&](auto const& r) { rates.push_back(r.lr); }});
  CHECK(report.skipped == 3);
  CHECK(rates.back() < 0.0098);
  CHECK(report.samples >= 3 * 3 * 61);
}

TEST_CASE("a convex loss of the mean is at most the mean of the members' losses") {
  using line = nn::network<nn::shape{100}, nn::dense<4>>;
  random_stream const random{23};
  values pixels;
  std::vector<std::int32_t> kinds;
  for (int s = 0; s < 80; ++s) {
    kinds.push_back(random.uniform(static_cast<std::uint64_t>(90000 + s)) < 0.3f ? (s + 1) % 4 : s % 4);
    for (int i = 0; i < 100; ++i) pixels.push_back(random.uniform(pixels.size()) + (i % 4 == s % 4 ? 0.2f : 0.f));
  }
  data::in_memory const noisy(pixels, kinds, 100);
  train::trainer trainer{model_of<line>(), optim::momentum{.lr = 0.03f}, sync::local_sgd{}, comm::threads{4}};
  trainer.fit(noisy, {.batch = 4, .epochs = 5});
  double members = 0;
  for (int r = 0; r < 4; ++r) {
    train::trainer one{member(model_of<line>(), trainer.state(), r), rule, sync::all_reduce{}, comm::self{}};
    members += one.evaluate(noisy).mean() / 4;
  }
  auto const mean = trainer.evaluate(noisy).mean();
  MESSAGE("mean of losses " << members << ", loss of the mean " << mean);
  CHECK(mean < members);
}

TEST_CASE("SWAP on a small network: the mean beats its members on samples that none of them saw") {
  // Wrong labels in the training set: small batches at a high rate keep moving, each rank in another direction.
  auto const images = [](std::size_t begin, std::size_t end, bool wrong) {
    random_stream const random{31};
    auto const all = test::images(400);
    data::batch_buffer b;
    std::vector<std::int64_t> every(end - begin);
    std::iota(every.begin(), every.end(), static_cast<std::int64_t>(begin));
    all.load(every, b);
    values pixels(b.view().values.begin(), b.view().values.end());
    for (std::size_t i = 0; i < pixels.size(); ++i)
      pixels[i] += 1.2f * (random.uniform(begin * 100 + i) + random.uniform(1'000'000 + begin * 100 + i) - 1);
    std::vector<std::int32_t> kinds(b.view().targets.begin(), b.view().targets.end());
    if (wrong)
      for (std::size_t i = 0; i < kinds.size(); ++i)
        if (random.uniform(2'000'000 + i) < 0.2f) kinds[i] = (kinds[i] + 1) % 4;
    return data::in_memory(std::move(pixels), std::move(kinds), 100);
  };
  auto const seen = images(0, 200, true), unseen = images(200, 400, false);
  comm::threads const world(4);
  auto const start = model_of<test::images_net_without_noise>();
  train::trainer together{start, optim::momentum{.lr = 0.05f}, sync::all_reduce{}, world};
  together.fit(seen, {.batch = 10, .epochs = 8});
  train::trainer apart{together.model(), optim::momentum{.lr = 0.02f}, sync::local_sgd{}, world};
  apart.fit(seen, {.batch = 5, .epochs = 4, .seed = 1});
  double members = 0;
  for (int r = 0; r < 4; ++r) {
    train::trainer one{member(start, apart.state(), r), rule, sync::all_reduce{}, comm::self{}};
    members += one.evaluate(unseen).mean() / 4;
  }
  auto const before = together.evaluate(unseen), mean = apart.evaluate(unseen);
  MESSAGE("loss together " << before.mean() << ", of members " << members << ", of the mean " << mean.mean()
                           << ", accuracy " << before.accuracy() << " and " << mean.accuracy());
  CHECK(mean.mean() < 0.97 * members);
}

}  // namespace train_local_sgd
