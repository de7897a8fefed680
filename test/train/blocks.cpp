// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Networks of blocks, with noise and with buffers, trained by the trainer on several ranks.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "nn/batch_reference.hpp"
#include "small.hpp"

namespace train_blocks {

using namespace dovetail;

namespace {

using test::blocks_net;

std::vector<float> numbers(io::saved_state::piece const& p) {
  std::vector<float> v(p.bytes.size() / sizeof(float));
  std::memcpy(v.data(), p.bytes.data(), p.bytes.size());
  return v;
}
template <class Model>
std::vector<float> buffers_of(Model& m) {
  std::vector<float> all;
  for (auto const& t : m.buffers()) {
    auto const one = numbers({t.type, t.shape, {t.bytes.begin(), t.bytes.end()}});
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

template <class Net = blocks_net, class Sync>
auto make_trainer(Sync const& sync, comm::threads const& world) {
  return train::trainer{test::initialized<Net>(), nn::softmax_cross_entropy{}, optim::adamw{.lr = 0.01f}, sync, world};
}

/// Eleven steps in one go, and the same in three parts, saved on the way as well: all that is kept has the same bits.
template <class Sync>
void check_resume(Sync const& sync, int ranks) {
  CAPTURE(ranks);
  comm::threads const world(ranks);
  train::fit_options options{.batch = 5, .steps = 11, .accumulate = 2, .seed = 9};
  auto whole = make_trainer(sync, world);
  auto const expected = whole.fit(test::images(), options);
  io::saved_state saved;
  std::vector<double> losses;
  for (std::int64_t stop : {4, 9, 11}) {
    auto part = make_trainer(sync, world);
    part.model().network.initialize(stop == 4 ? 3 : 1234);  // the state must bring weights and buffers
    if (!saved.empty()) part.restore(saved);
    options.steps = stop;
    options.save_every = 3;
    options.on_save = [&](io::saved_state& s) { saved = s; };
    auto const r = part.fit(test::images(), options);
    losses.insert(losses.end(), r.losses.begin(), r.losses.end());
    if (stop < 11) continue;
    CHECK(test::digest(part.model().parameters()) == test::digest(whole.model().parameters()));
    CHECK(buffers_of(part.model()) == buffers_of(whole.model()));
    CHECK(part.state() == whole.state());
    CHECK(part.evaluate(test::images()) == whole.evaluate(test::images()));
  }
  CHECK(losses == expected.losses);
}

}  // namespace

TEST_CASE("a network with running statistics that was interrupted equals one that was not, bit for bit") {
  for (int ranks : {1, 2, 3}) check_resume(sync::all_reduce{.bucket_bytes = 500}, ranks);
  check_resume(sync::local_sgd{}, 2);
  check_resume(sync::local_sgd{.every = 3}, 2);
}

TEST_CASE("what is saved, evaluated and handed back is the mean of the ranks' statistics") {
  comm::threads const world(3);
  auto t = make_trainer(sync::all_reduce{}, world);
  io::saved_state saved;
  t.fit(test::images(), {.batch = 4, .steps = 6, .on_save = [&](io::saved_state& s) { saved = s; }});
  std::vector<float> all;
  int differ = 0;
  for (auto const& b : t.model().buffers()) {
    auto const* const piece = saved.find(b.name);
    REQUIRE(piece);
    auto const mean = numbers(*piece);
    all.insert(all.end(), mean.begin(), mean.end());
    std::vector<std::vector<float>> of;
    for (int r = 0; r < 3; ++r) of.push_back(numbers(saved.pieces().at(message("rank", r, ".buffers.", b.name))));
    for (std::size_t i = 0; i < mean.size(); ++i) {
      CHECK(mean[i] == (of[0][i] + of[1][i] + of[2][i]) / 3);
      differ += of[0][i] != of[1][i];
    }
  }
  CHECK(differ > 10);
  CHECK(buffers_of(t.model()) == all);
  // Evaluation is that of one copy with these statistics.
  auto copy = t.model();
  data::batch_buffer everything;
  std::vector<std::int64_t> indices(61);
  for (std::size_t i = 0; i < 61; ++i) indices[i] = static_cast<std::int64_t>(i);
  test::images().load(indices, everything);
  auto const sums = t.evaluate(test::images(), 7);
  CHECK(sums.loss == doctest::Approx(copy.evaluate(everything.view()).loss).epsilon(1e-6));
  // With other statistics it is another one: they are what is used.
  copy.network.initialize(3);
  auto fresh = copy.buffers();
  for (std::size_t i = 0; i < copy.parameters().size(); ++i)
    std::copy_n(t.model().parameters()[i].weight.begin(), copy.parameters()[i].size(),
                copy.parameters()[i].weight.begin());
  CHECK(sums.loss != doctest::Approx(copy.evaluate(everything.view()).loss).epsilon(1e-3));
}

TEST_CASE("another number of ranks goes on from the mean") {
  comm::threads const three(3), one(1);
  auto first = make_trainer(sync::all_reduce{}, three);
  io::saved_state saved;
  first.fit(test::images(), {.batch = 4, .steps = 6, .on_save = [&](io::saved_state& s) { saved = s; }});
  auto second = make_trainer(sync::all_reduce{}, one);
  second.restore(saved);
  CHECK(buffers_of(second.model()) == buffers_of(first.model()));
  second.fit(test::images(), {.batch = 12, .steps = 6});  // no step is left
  CHECK(buffers_of(second.model()) == buffers_of(first.model()));
  // A state of a network without them is another network's.
  auto const other = make_trainer<test::images_net>(sync::all_reduce{}, one);
  CHECK_THROWS_AS(second.restore(other.state()), checkpoint_error);
}

TEST_CASE("a step that is skipped leaves running statistics as they were") {
  comm::threads const world(2);
  std::vector<float> values;
  std::vector<std::int32_t> targets(24);
  for (std::size_t i = 0; i < 24 * 100; ++i) values.push_back(static_cast<float>((7 * i) % 13));
  values[9 * 100 + 5] = std::numeric_limits<float>::infinity();  // of one sample in the second step
  for (std::size_t i = 0; i < 24; ++i) targets[i] = static_cast<std::int32_t>(i % 4);
  auto t = make_trainer(sync::all_reduce{}, world);
  auto const report =
      t.fit(data::in_memory{values, targets, 100}, {.batch = 4, .steps = 3, .shuffle = false, .max_skipped = 2});
  CHECK(report.skipped == 1);
  for (float const x : buffers_of(t.model())) CHECK(std::isfinite(x));
}

TEST_CASE("gradients of a trained network of blocks are those of the reference") {
  comm::threads const world(2);
  auto t = make_trainer(sync::all_reduce{}, world);
  t.fit(test::images(), {.batch = 4, .steps = 5});
  gradient_pass pass;
  pass.seed = 3;
  auto const d = reference::from_batch_reference(t.model(), differences::noise<blocks_net>(4), pass, 20);
  CAPTURE(d.tensor);
  CHECK(d.loss < 1e-6);
  CHECK(d.gradient < 2e-5);
}

namespace {

/// A model of somebody else's with buffers of all types.
struct counting {
  std::vector<float> w = std::vector<float>(1), g = std::vector<float>(1);
  parameter_list list;
  float mean = 0;
  double sum = 0;
  std::int64_t batches = 0;

  counting() { bind(); }
  counting(counting const& o) : w(o.w), g(o.g), mean(o.mean), sum(o.sum), batches(o.batches) { bind(); }
  counting& operator=(counting const& o) {
    w[0] = o.w[0], mean = o.mean, sum = o.sum, batches = o.batches;
    return *this;
  }
  parameter_list& parameters() { return list; }
  std::vector<named_tensor> buffers() {
    return {make_named_tensor("mean", mean), make_named_tensor("sum", sum), make_named_count("batches", batches)};
  }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (!pass.accumulate) g[0] = 0;
    for (float const x : b.values) mean += 0.125f * (x - mean), sum += static_cast<double>(x);
    ++batches;
    return {0, b.size, 0};
  }

 private:
  void bind() { list.add("w", w, g); }
};

}  // namespace

TEST_CASE("ranks agree on buffers of any model, and begin with rank 0's") {
  std::vector<float> const values{0, 1, 2, 3, 4, 5, 6, 7};
  data::in_memory const data{values, std::vector<std::int32_t>(8), 1};
  std::vector<double> sums(2);
  std::vector<float> means(2);
  comm::threads(2).run([&](auto& c) {
    counting mine;
    mine.sum = c.rank() == 0 ? 100 : 7;
    mine.batches = c.rank() == 0 ? 5 : 9;
    train::fit_options const options{.batch = 2, .epochs = 1, .shuffle = false};
    train::training_loop run(mine, optim::sgd{}, sync::all_reduce{}, data, c, options, 1);
    run.run();
    sums[static_cast<std::size_t>(c.rank())] = mine.sum;
    means[static_cast<std::size_t>(c.rank())] = mine.mean;
    CHECK(mine.batches == 7);
  });
  CHECK(sums == std::vector<double>{114, 114});  // 100 + (0 + 1 + 4 + 5 + 2 + 3 + 6 + 7) / 2
  CHECK(means[0] == means[1]);
  CHECK(means[0] > 0);
}

}  // namespace train_blocks
