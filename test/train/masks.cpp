// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Targets that are numbers, and predictions that are left out: the mean that is trained is that of those that count.
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/optim/sam.hpp>

#include <doctest/doctest.h>

#include "small.hpp"

namespace train_masks {

using namespace dovetail;

namespace {

using small_net = nn::network<nn::shape{4}, nn::dense<8>, nn::tanh, nn::dense<3>>;

/// 40 samples of 3 numbers to predict, of which some are not known: more of them in the first half of each group of 8,
/// so that ranks have unlike numbers.
data::in_memory_regression numbers(bool masked) {
  random_stream const random{5};
  std::vector<float> x, y, w;
  for (std::size_t s = 0; s < 40; ++s) {
    for (std::size_t i = 0; i < 4; ++i) x.push_back(2 * random.uniform(4 * s + i) - 1);
    for (std::size_t k = 0; k < 3; ++k) {
      bool const known = s % 8 < 4 ? k == s % 3 : k + 1 != s % 5;
      y.push_back(masked && !known ? NAN : x[4 * s + k] * x[4 * s + 3]);
      w.push_back(known ? 1.f + static_cast<float>(k) : 0.f);
    }
  }
  return {std::move(x), std::move(y), 4, 3, masked ? std::move(w) : std::vector<float>{}};
}

template <class Loss, class Data, class Net = small_net>
auto train_on(int ranks, Loss const& loss, Data const& data, train::fit_options options) {
  comm::threads const world(ranks);
  options.batch = 8 / ranks;
  train::trainer t{test::initialized<Net>(), loss, optim::momentum{.lr = 0.1f}, sync::all_reduce{}, world};
  auto report = t.fit(data, options);
  auto const w = t.model().parameters().flat_weights();
  return std::pair{std::move(report), std::vector<float>(w.begin(), w.end())};
}
template <class A>
void check_close(A const& a, A const& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])) < 2e-5);
}

}  // namespace

TEST_CASE("a regression with masks is trained on two ranks as on one") {
  for (std::int64_t accumulate : {1, 3}) {
    train::fit_options const options{.epochs = 3, .accumulate = accumulate};
    auto const [one, w1] = train_on(1, nn::mean_squared_error{}, numbers(true), options);
    for (int ranks : {2, 4}) {
      auto const [many, w] = train_on(ranks, nn::mean_squared_error{}, numbers(true), options);
      check_close(many.losses, one.losses);
      check_close(w, w1);
    }
  }
  check_close(train_on(2, nn::huber{.delta = 0.1f}, numbers(true), {.epochs = 2}).second,
              train_on(1, nn::huber{.delta = 0.1f}, numbers(true), {.epochs = 2}).second);
}

TEST_CASE("the first step's gradient is that of the mean over predictions that count") {
  comm::threads const world(2);
  auto const start = test::initialized<small_net>();
  train::trainer t{start, nn::mean_squared_error{}, optim::sgd{.lr = 1.f}, sync::all_reduce{}, world};
  auto const report = t.fit(numbers(true), {.batch = 4, .steps = 1, .accumulate = 2, .shuffle = false});
  nn::with_loss model{start, nn::mean_squared_error{}};
  data::batch_buffer first;
  std::vector<std::int64_t> indices(16);
  for (std::size_t i = 0; i < 16; ++i) indices[i] = static_cast<std::int64_t>(i);
  numbers(true).load(indices, first);
  auto const count = model.predictions(first.view());
  CHECK(count < 30);
  gradient_pass pass;
  pass.scale = 1 / static_cast<float>(count);
  auto const sums = model.gradients(first.view(), pass);
  CHECK(report.losses[0] == doctest::Approx(sums.mean()).epsilon(1e-6));
  auto const w = t.model().parameters().flat_weights(), before = model.parameters().flat_weights(),
             g = model.parameters().flat_gradients();
  for (std::size_t i = 0; i < w.size(); ++i) CHECK(before[i] - w[i] == doctest::Approx(g[i]).epsilon(1e-4).scale(1e-2));
}

TEST_CASE("without masks no exchange is added, and with all weights 1 nothing changes") {
  auto const values = numbers(false);
  auto const [plain, w] = train_on(2, nn::mean_squared_error{}, values, {.steps = 6});
  data::batch_buffer all;
  std::vector<std::int64_t> indices(40);
  for (std::size_t i = 0; i < 40; ++i) indices[i] = static_cast<std::int64_t>(i);
  values.load(indices, all);
  data::in_memory_regression const ones(all.values, all.target_values, 4, 3, std::vector<float>(120, 1.f));
  auto const [masked, w1] = train_on(2, nn::mean_squared_error{}, ones, {.steps = 6});
  CHECK(plain.losses == masked.losses);
  CHECK(w == w1);
  CHECK(masked.traffic.operations == plain.traffic.operations + 6);
  std::vector<float> classes_x(40 * 100);
  auto const report =
      train_on<nn::softmax_cross_entropy, data::in_memory, test::images_net>(2, {}, test::images(40), {.steps = 6})
          .first;
  CHECK(report.traffic.operations == plain.traffic.operations);
}

TEST_CASE("a step in which nothing counts changes nothing, and ranks that train apart count their own") {
  data::in_memory_regression const nothing(std::vector<float>(16 * 4, 0.5f), std::vector<float>(16 * 3, NAN), 4, 3,
                                           std::vector<float>(16 * 3, 0.f));
  auto const start = test::initialized<small_net>();
  comm::threads const world(2);
  train::trainer t{start, nn::mean_squared_error{}, optim::sgd{.lr = 1.f}, sync::all_reduce{}, world};
  auto const report = t.fit(nothing, {.batch = 4, .steps = 3});
  CHECK(report.losses == std::vector<double>(3));
  CHECK(report.skipped == 0);
  CHECK(test::digest(t.model().parameters()) == test::digest(start.parameters()));
  CHECK(t.evaluate(nothing) == loss_sums{});
  train::trainer apart{start, nn::mean_squared_error{}, optim::momentum{.lr = 0.1f}, sync::local_sgd{.every = 2},
                       world};
  auto const of_both = apart.fit(numbers(true), {.batch = 8, .epochs = 12});
  CHECK(of_both.losses.back() < of_both.losses.front() / 2);
}

namespace {

/// Sentences of 2 to 6 words that count up, filled up with garbage.
struct sentences {
  std::int64_t size() const { return 32; }
  std::int64_t predictions_per_sample() const { return 6; }
  bool masks() const { return true; }
  void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
    out.reset(indices.size(), 0, 6, 6);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      auto const length = static_cast<std::size_t>(2 + indices[i] % 5);
      out.lengths.push_back(static_cast<std::int32_t>(length));
      for (std::size_t k = 0; k < 6; ++k) {
        auto const word = static_cast<std::int32_t>(static_cast<std::size_t>(indices[i]) + k);
        out.tokens[6 * i + k] = k < length ? word % 9 : 0;
        out.targets[6 * i + k] = k < length ? (word + 1) % 9 : -77;  // of what is filled up nobody reads the target
      }
    }
  }
};

}  // namespace

TEST_CASE("sentences of unlike lengths, and ignored targets, are trained on two ranks as on one") {
  using net = nn::network<nn::shape{6}, nn::embedding<9, 6>, nn::lstm<8>, nn::dense<9>>;
  nn::softmax_cross_entropy const smooth{.label_smoothing = 0.1f};
  train::fit_options const options{.epochs = 10};
  auto const [one, w1] = train_on<nn::softmax_cross_entropy, sentences, net>(1, smooth, sentences{}, options);
  auto const [two, w2] = train_on<nn::softmax_cross_entropy, sentences, net>(2, smooth, sentences{}, options);
  check_close(two.losses, one.losses);
  check_close(w1, w2);
  CHECK(one.losses.back() < one.losses.front());
  // The model says that targets are ignored, where the data do not.
  nn::softmax_cross_entropy const ignoring{.ignore_index = 2};
  auto const of = [&](int ranks) {
    return train_on<nn::softmax_cross_entropy, data::in_memory, test::images_net_without_noise>(
        ranks, ignoring, test::images(), {.epochs = 2});
  };
  auto const [a, wa] = of(1);
  auto const [b, wb] = of(2);
  check_close(a.losses, b.losses);
  check_close(wa, wb);
  comm::threads const world(2);
  train::trainer t{test::initialized<test::images_net>(), ignoring, optim::sgd{}, sync::all_reduce{}, world};
  CHECK(t.evaluate(test::images()).count == 61 - 15);
}

TEST_CASE("data with masks need a model that counts, and sizes that agree") {
  struct line {
    std::vector<float> w = std::vector<float>(1), g = std::vector<float>(1);
    parameter_list list;
    line() { list.add("w", w, g); }
    line(line const& o) : w(o.w), g(o.g) { list.add("w", w, g); }
    line& operator=(line const&) = default;
    parameter_list& parameters() { return list; }
    loss_sums gradients(data::batch const&, gradient_pass const&) { return {}; }
  };
  comm::threads const world(2);
  train::trainer t{line{}, optim::sgd{}, sync::all_reduce{}, world};
  CHECK_THROWS_WITH_AS(t.fit(numbers(true), {.batch = 4, .steps = 1}), doctest::Contains("no `predictions("),
                       argument_error);
  CHECK_THROWS_AS(data::in_memory_regression({1, 2, 3}, {1}, 2), argument_error);
  CHECK_THROWS_AS(data::in_memory_regression({1, 2, 3, 4}, {1}, 2), argument_error);
  CHECK_THROWS_AS(data::in_memory_regression({1, 2, 3, 4}, {1, 2}, 2, 1, {1}), argument_error);
  CHECK(numbers(true).identity() != numbers(false).identity());
}

namespace {
/// Gives weights and does not say so.
struct silent {
  data::in_memory_regression data = numbers(true);
  std::int64_t size() const { return data.size(); }
  std::int64_t predictions_per_sample() const { return 3; }
  void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const { data.load(indices, out); }
};
/// Says another number of predictions than there are.
struct miscounted : silent {
  std::int64_t predictions_per_sample() const { return 1; }
  void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
    data.load(indices, out);
    out.weights.clear();
  }
};
/// Does not say how many predictions count.
struct bare {
  nn::with_loss<small_net, nn::mean_squared_error> inner{test::initialized<small_net>(), {}};
  parameter_list& parameters() { return inner.parameters(); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) { return inner.gradients(b, pass); }
};
}  // namespace

TEST_CASE("data that leave predictions out, or have another number, without a word are refused") {
  comm::self one;
  auto const start = test::initialized<small_net>();
  auto const fits = [&](auto&& trainer, auto const& data) { trainer.fit(data, {.batch = 4, .steps = 1}); };
  train::trainer t{start, nn::mean_squared_error{}, optim::sgd{.lr = 1.f}, sync::all_reduce{}, one};
  CHECK_THROWS_WITH_AS(fits(t, silent{}), doctest::Contains("has weights or lengths"), argument_error);
  CHECK_THROWS_WITH_AS(fits(t, miscounted{}), doctest::Contains("has 12 predictions that count"), argument_error);
  train::trainer b{bare{}, optim::sgd{.lr = 1.f}, sync::all_reduce{}, one};
  CHECK_THROWS_WITH_AS(fits(b, silent{}), doctest::Contains("has weights or lengths"), argument_error);
  train::trainer s{optim::sam{bare{}}, optim::sgd{.lr = 1.f}, sync::all_reduce{}, one};
  CHECK_THROWS_WITH_AS(fits(s, numbers(true)), doctest::Contains("sam: the batch leaves predictions out"),
                       argument_error);
  for (float const w : {-1.f, NAN, INFINITY})
    CHECK_THROWS_WITH_AS((data::in_memory_regression{{1, 2}, {3}, 2, 1, {w}}), doctest::Contains("a weight of"),
                         argument_error);
}

}  // namespace train_masks
