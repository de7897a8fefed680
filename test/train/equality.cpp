// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cmath>
#include <map>
#include <mutex>
#include <vector>

#include <doctest/doctest.h>

#include "small.hpp"

namespace train_equality {

using namespace dovetail;

namespace {

/// A model that writes down what its weights are whenever gradients are asked for: step by step, rank by rank.
template <class Inner>
struct watched {
  struct diary {
    std::mutex mutex;
    std::map<std::uint64_t, std::map<std::uint32_t, std::uint64_t>> digests;  // step -> rank -> digest
  };
  Inner inner;
  std::shared_ptr<diary> seen = std::make_shared<diary>();

  parameter_list& parameters() { return inner.parameters(); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    {
      std::lock_guard const lock(seen->mutex);
      seen->digests[pass.step][pass.rank] = test::digest(inner.parameters());
    }
    return inner.gradients(b, pass);
  }
  loss_sums evaluate(data::batch const& b, int threads) { return inner.evaluate(b, threads); }
};

template <class Net>
auto model_of() {
  return nn::with_loss{test::initialized<Net>(), nn::softmax_cross_entropy{}};
}

struct run_result {
  std::vector<double> losses;
  std::uint64_t weights;
  std::vector<float> values{};
};

template <class Net, class Optimizer, class Sync, class Data>
run_result run(Optimizer opt, Sync sync, Data const& data, int ranks, train::fit_options options) {
  comm::threads world(ranks);
  train::trainer trainer{model_of<Net>(), opt, sync, world};
  auto report = trainer.fit(data, options);
  run_result r{report.losses, test::digest(trainer.model().parameters())};
  for (auto& p : trainer.model().parameters()) r.values.insert(r.values.end(), p.weight.begin(), p.weight.end());
  return r;
}

sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}}, .bucket_bytes = 2000};
sync::all_reduce const dense{.bucket_bytes = 2000};

}  // namespace

TEST_CASE("all replicas hold the same bits before every step") {
  auto const check = [](auto sync, int ranks) {
    using model_type = watched<decltype(model_of<test::images_net>())>;
    model_type m{model_of<test::images_net>()};
    auto const seen = m.seen;
    comm::threads world(ranks);
    train::trainer trainer{std::move(m), optim::adamw{.lr = 0.01f}, sync, world};
    trainer.fit(test::images(), {.batch = 5, .epochs = 3});
    CHECK(seen->digests.size() >= 12);
    std::uint64_t previous = 0;
    for (auto const& [step, by_rank] : seen->digests) {
      REQUIRE(by_rank.size() == static_cast<std::size_t>(ranks));
      for (auto const& [rank, d] : by_rank) CHECK(d == by_rank.begin()->second);
      CHECK(by_rank.begin()->second != previous);  // and they do change
      previous = by_rank.begin()->second;
    }
  };
  for (int ranks : {2, 3, 4}) {
    check(dense, ranks);
    check(sparse, ranks);
    check(sync::all_reduce{compress::fp16{}}, ranks);
    check(sync::all_reduce{compress::error_feedback{compress::sign{}}, sync::exchange::reduce_scatter_all_gather{}},
          ranks);
  }
}

TEST_CASE("a run is bitwise equal to its repetition, and seeds make a difference") {
  for (int ranks : {1, 2, 3}) {
    train::fit_options const options{.batch = 5, .epochs = 2, .accumulate = 2, .seed = 42};
    auto const once = run<test::images_net>(optim::lamb{}, sparse, test::images(), ranks, options);
    auto const again = run<test::images_net>(optim::lamb{}, sparse, test::images(), ranks, options);
    CHECK(once.losses == again.losses);
    CHECK(once.weights == again.weights);
    auto other = options;
    other.seed = 43;
    CHECK(run<test::images_net>(optim::lamb{}, sparse, test::images(), ranks, other).weights != once.weights);
  }
  auto const text_once =
      run<test::text_net>(optim::adam{.lr = 0.01f}, dense, test::text(), 2, {.batch = 4, .steps = 12});
  auto const text_again =
      run<test::text_net>(optim::adam{.lr = 0.01f}, dense, test::text(), 2, {.batch = 4, .steps = 12});
  CHECK(text_once.losses == text_again.losses);
  CHECK(text_once.weights == text_again.weights);
}

TEST_CASE("P ranks with batch B are one rank with batch P·B, up to rounding, the uneven end of an epoch included") {
  auto const check = [](auto net, auto const& data, std::int64_t batch) {
    using net_type = decltype(net);
    auto const whole = run<net_type>(optim::momentum{.lr = 0.05f}, dense, data, 1, {.batch = 6 * batch, .steps = 12});
    for (int ranks : {2, 3, 6}) {
      auto const parts =
          run<net_type>(optim::momentum{.lr = 0.05f}, dense, data, ranks, {.batch = 6 / ranks * batch, .steps = 12});
      REQUIRE(parts.losses.size() == whole.losses.size());
      for (std::size_t i = 0; i < whole.losses.size(); ++i)
        CHECK(parts.losses[i] == doctest::Approx(whole.losses[i]).epsilon(2e-5));
      double difference = 0, norm = 0;
      for (std::size_t i = 0; i < whole.values.size(); ++i) {
        difference += std::pow(static_cast<double>(parts.values[i]) - static_cast<double>(whole.values[i]), 2);
        norm += std::pow(static_cast<double>(whole.values[i]), 2);
      }
      CHECK(difference <= 1e-10 * norm);
    }
    // Micro-batches that make one step are the same thing once more.
    auto const accumulated =
        run<net_type>(optim::momentum{.lr = 0.05f}, dense, data, 2, {.batch = batch, .steps = 2, .accumulate = 3});
    for (std::size_t i = 0; i < 2; ++i) CHECK(accumulated.losses[i] == doctest::Approx(whole.losses[i]).epsilon(2e-5));
  };
  check(test::images_net_without_noise{}, test::images(), 4);
  check(test::text_net{}, test::text(), 2);
}

TEST_CASE("rules that need the loss are told that of the whole batch: P ranks with batch B are one with batch P·B") {
  auto const check = [](auto rule) {
    using net_type = test::images_net_without_noise;
    auto const one = run<net_type>(rule, dense, test::images(), 1, {.batch = 24, .steps = 12});
    auto const two = run<net_type>(rule, dense, test::images(), 2, {.batch = 12, .steps = 12});
    auto const pieces = run<net_type>(rule, dense, test::images(), 2, {.batch = 4, .steps = 2, .accumulate = 3});
    REQUIRE(two.losses.size() == one.losses.size());
    for (std::size_t i = 0; i < one.losses.size(); ++i)
      CHECK(two.losses[i] == doctest::Approx(one.losses[i]).epsilon(5e-5));
    for (std::size_t i = 0; i < 2; ++i) CHECK(pieces.losses[i] == doctest::Approx(one.losses[i]).epsilon(5e-5));
    CHECK(one.losses.back() < 0.9 * one.losses.front());
  };
  check(optim::momo_adam{.lr = 0.01f});
  check(optim::polyak_sgd{.lr = 0.2f, .largest = 10});
}

TEST_CASE("training learns: the loss falls and a held-out set is recognized") {
  comm::threads world(2);
  train::trainer trainer{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optim::adamw{.lr = 0.01f},
                         sparse, world};
  auto const before = trainer.evaluate(test::images(40), 7);
  auto const report = trainer.fit(test::images(), {.batch = 5, .epochs = 12});
  auto const after = trainer.evaluate(test::images(40), 7);
  CHECK(after.count == 40);
  CHECK(after.mean() < 0.5 * before.mean());
  CHECK(after.accuracy() > 0.9);
  CHECK(report.losses.back() < report.losses.front());
  CHECK(report.samples == 12 * 61);
  CHECK(report.traffic.bytes_sent > 0);
}

TEST_CASE("what does not fit is said in one line, before anything has changed") {
  comm::threads world(2);
  train::trainer trainer{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optim::adamw{}, dense,
                         world};
  auto const before = test::digest(trainer.model().parameters());
  CHECK_THROWS_WITH_AS(trainer.fit(test::images(), {.batch = 100}),
                       doctest::Contains("is more than the 61 samples of the dataset: use a batch of at most 30"),
                       argument_error);
  CHECK_THROWS_AS(trainer.fit(test::images(), {.batch = 0}), argument_error);
  CHECK_THROWS_AS(trainer.fit(test::images(), {.batch = 5, .accumulate = 0}), argument_error);
  CHECK_THROWS_AS(trainer.fit(test::text(), {.batch = 5}), argument_error);  // tokens for a network of images
  CHECK_THROWS_WITH_AS(comm::threads(0), doctest::Contains("0 ranks"), argument_error);
  CHECK(test::digest(trainer.model().parameters()) == before);
}

TEST_CASE("a training that diverges stops with the reason, and keeps what it had apart from the last good state") {
  comm::threads world(2);
  std::vector<float> values(40 * 100, 1.f);
  std::vector<std::int32_t> targets(40, 1);
  auto data = data::in_memory(values, targets, 100);
  for (auto& v : values) v = NAN;
  auto const poisoned = data::in_memory(values, targets, 100);
  train::trainer trainer{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optim::adamw{}, dense,
                         world};
  trainer.fit(data, {.batch = 5, .steps = 3});
  auto const good = test::digest(trainer.model().parameters());
  io::saved_state saved;
  CHECK_THROWS_WITH_AS(
      trainer.fit(poisoned, {.batch = 5,
                             .steps = 20,
                             .new_data = true,
                             .max_skipped = 4,
                             .on_save = [&](io::saved_state&) { FAIL("the last good state would be lost"); },
                             .on_give_up = [&](io::saved_state& s) { saved = s; }}),
      doctest::Contains("the gradient was not finite for 4 steps in a row, up to step 7"), numeric_error);
  CHECK(test::digest(trainer.model().parameters()) == good);
  train::trainer rescued{test::images_net{}, nn::softmax_cross_entropy{}, optim::adamw{}, dense, world};
  rescued.restore(saved);
  CHECK(test::digest(rescued.model().parameters()) == good);
}

}  // namespace train_equality
