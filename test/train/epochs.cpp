// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Epochs are samples: whatever changes between two calls of fit, every sample of every epoch is trained exactly once.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include <dovetail/comm.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

#include <doctest/doctest.h>

namespace train_epochs {

using namespace dovetail;
using namespace std::chrono_literals;

namespace {

/// How often each sample was trained, by all ranks.
struct diary {
  std::mutex mutex;
  std::map<std::int32_t, int> seen;
  std::int64_t total() const {
    std::int64_t n = 0;
    for (auto const& [sample, times] : seen) n += times;
    return n;
  }
};

/// One weight that becomes the mean of the samples' values; a sample's target is its number.
struct mean_of_values {
  std::shared_ptr<diary> seen = std::make_shared<diary>();
  std::vector<float> w = std::vector<float>(1), g = std::vector<float>(1);
  parameter_list list;

  mean_of_values() { list.add("mean", w, g); }
  mean_of_values(mean_of_values const& o) : seen(o.seen), w(o.w), g(o.g) { list.add("mean", w, g); }
  mean_of_values& operator=(mean_of_values const& o) {
    seen = o.seen;
    std::copy(o.w.begin(), o.w.end(), w.begin());
    return *this;
  }
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (!pass.accumulate) g[0] = 0;
    loss_sums sums = evaluate(b, 1);
    for (float const x : b.values) g[0] += pass.scale * (w[0] - x);
    std::lock_guard const lock(seen->mutex);
    for (auto const t : b.targets) ++seen->seen[t];
    return sums;
  }
  loss_sums evaluate(data::batch const& b, int) {
    loss_sums sums;
    for (float const x : b.values) {
      sums.loss += static_cast<double>((w[0] - x) * (w[0] - x)) / 2;
      ++sums.count;
    }
    return sums;
  }
};

data::in_memory numbers(int n, float first = 0) {
  std::vector<float> values;
  std::vector<std::int32_t> targets;
  for (int i = 0; i < n; ++i) {
    values.push_back(first + static_cast<float>(i));
    targets.push_back(i);
  }
  return {values, targets, 1};
}

template <class Sync = sync::all_reduce<>>
auto trainer_on(int ranks, Sync const& sync = {}) {
  return train::trainer{mean_of_values{}, optim::sgd{.lr = 0.1f}, sync, comm::threads{ranks}};
}

/// What fit reports is what the model saw: every sample of `data` exactly `times` more often than before.
template <class Trainer, class Data>
void check_fit(Trainer& t, Data const& data, train::fit_options o, int times) {
  auto const before = t.model().seen->seen;
  auto const made = t.model().seen->total();
  std::int64_t records = 0, last_total = -1;
  o.on_step = [&](train::step_record const& r) {
    records += r.samples;
    last_total = r.total_steps;
  };
  auto const r = t.fit(data, o);
  auto after = t.model().seen->seen;
  CHECK(r.samples == times * data.size());
  CHECK(records == r.samples);
  CHECK(t.model().seen->total() - made == r.samples);
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(data.size()); ++i) {
    auto const was = before.find(i);
    CHECK(after[i] == (was == before.end() ? 0 : was->second) + times);
  }
  if (!o.accumulate_at && times > 0) CHECK(last_total == r.step);
}

}  // namespace

TEST_CASE("another batch, accumulation or number of ranks trains as many samples as the epochs have") {
  for (int ranks : {1, 2, 3}) {
    auto t = trainer_on(ranks);
    check_fit(t, numbers(80), {.batch = 8, .epochs = 1}, 1);
    check_fit(t, numbers(80), {.batch = 32 / ranks, .epochs = 2}, 1);
    check_fit(t, numbers(80), {.batch = 16 / ranks, .epochs = 3, .accumulate = 3}, 1);
    check_fit(t, numbers(80), {.batch = 8, .epochs = 5, .accumulate = 100}, 2);
    check_fit(t, numbers(80), {.batch = 8, .epochs = 5}, 0);
    check_fit(t, numbers(80), {.batch = 1, .epochs = 6, .accumulate_at = [](auto const&) { return 7; }}, 1);
    check_fit(t, numbers(80), {.batch = 26, .epochs = 8, .shuffle = false}, 2);
    for (int other : {1, 2, 4}) {  // as many ranks or others
      auto u = trainer_on(other);
      u.restore(t.state());
      check_fit(u, numbers(80), {.batch = 8, .epochs = 10}, 2);
      CHECK(u.steps() > t.steps());
    }
  }
}

TEST_CASE("interrupted in the middle of an epoch: the rest of its samples, and no other, whatever has changed") {
  for (int ranks : {1, 2, 3})
    for (std::int64_t accumulate : {1, 2, 5}) {
      auto t = trainer_on(ranks);
      t.fit(numbers(61), {.batch = 4, .steps = 3, .accumulate = accumulate, .seed = 5});
      for (int other : {1, 2, 4}) {
        mean_of_values fresh;
        fresh.seen->seen = t.model().seen->seen;
        train::trainer u{fresh, optim::sgd{.lr = 0.1f}, sync::all_reduce{}, comm::threads{other}};
        u.restore(t.state());
        auto const done = t.model().seen->total();
        auto const r = u.fit(numbers(61), {.batch = 7, .epochs = 4, .accumulate = 3, .seed = 5});
        CHECK(r.samples == 4 * 61 - done);
        auto const& seen = u.model().seen->seen;
        CHECK(seen.size() == 61);
        for (auto const& [sample, times] : seen) CHECK(times == 4);
      }
    }
}

TEST_CASE("the last step of the last epoch takes what is left, weighed by its samples") {
  // 10 samples on 2 ranks with batch 2: micro-batches of 4, 4 and 2 samples.
  for (std::int64_t epochs : {1, 2, 3})
    for (std::int64_t accumulate : {1, 2, 3, 4, 7, 1000}) {
      auto t = trainer_on(2);
      std::vector<std::int64_t> samples;
      auto const r =
          t.fit(numbers(10), {.batch = 2, .epochs = epochs, .accumulate = accumulate, .on_step = [&](auto const& s) {
                                samples.push_back(s.samples);
                                CHECK(s.total_steps == (3 * epochs + accumulate - 1) / accumulate);
                              }});
      CHECK(r.samples == 10 * epochs);
      CHECK(r.step == (3 * epochs + accumulate - 1) / accumulate);
      if (accumulate == 7 && epochs == 3) CHECK(samples == std::vector<std::int64_t>{24, 6});
    }
  // A step over all samples goes a tenth of the way to their mean, however they were cut.
  for (std::int64_t batch : {1, 2, 3, 5}) {
    auto t = trainer_on(2);
    t.fit(numbers(10, 100), {.batch = batch, .epochs = 1, .accumulate = 7});
    CHECK(t.model().w[0] == doctest::Approx(10.45).epsilon(1e-5));
  }
  // Where steps are counted every step is whole.
  auto t = trainer_on(2);
  CHECK(t.fit(numbers(10), {.batch = 2, .steps = 1, .accumulate = 7}).samples == 24);
  CHECK(t.fit(numbers(10), {.batch = 2, .epochs = 3, .accumulate = 7}).samples == 6);
  CHECK(t.fit(numbers(10), {.batch = 2, .epochs = std::int64_t{1} << 62, .steps = 3}).step == 3);
}

TEST_CASE("ranks that train apart: every one sees every sample of an epoch") {
  for (int ranks : {1, 2, 3}) {
    auto t = trainer_on(ranks, sync::local_sgd{.every = 2});
    check_fit(t, numbers(30), {.batch = 8, .epochs = 1}, ranks);
    check_fit(t, numbers(30), {.batch = 30, .epochs = 2}, ranks);
    check_fit(t, numbers(30), {.batch = 7, .epochs = 4, .accumulate = 4}, 2 * ranks);
    auto u = trainer_on(ranks, sync::local_sgd{});
    u.fit(numbers(30), {.batch = 8, .steps = 2});
    CHECK(u.fit(numbers(30), {.batch = 5, .epochs = 1}).samples == ranks * 14);
    for (auto const& [sample, times] : u.model().seen->seen) CHECK(times == ranks);
  }
}

TEST_CASE("other data are refused by name, or begin with their first epoch") {
  auto t = trainer_on(2);
  t.fit(numbers(80), {.batch = 8, .epochs = 2});
  CHECK_THROWS_WITH_AS(t.fit(numbers(40), {.batch = 8, .epochs = 3}), doctest::Contains("of a data set of 80 samples"),
                       checkpoint_error);
  CHECK_THROWS_WITH_AS(t.fit(numbers(40), {.batch = 8, .steps = 100}), doctest::Contains("this one has 40"),
                       checkpoint_error);
  CHECK_THROWS_WITH_AS(t.fit(numbers(80, 1), {.batch = 8, .epochs = 3}), doctest::Contains(".new_data = true"),
                       checkpoint_error);  // as many, others
  CHECK(t.steps() == 10);
  check_fit(t, numbers(40), {.batch = 8, .epochs = 3, .new_data = true}, 3);
  // What is said once holds for the rest of that data's epochs.
  t.fit(numbers(80), {.batch = 8, .steps = t.steps() + 2, .new_data = true});
  CHECK(t.fit(numbers(80), {.batch = 8, .epochs = 1, .new_data = true}).samples == 80 - 32);
  check_fit(t, numbers(80), {.batch = 8, .epochs = 2}, 1);

  // In the middle of an epoch neither its order may change.
  t.fit(numbers(80), {.batch = 8, .steps = t.steps() + 2});
  CHECK_THROWS_WITH_AS(t.fit(numbers(80), {.batch = 8, .epochs = 9, .shuffle = false}),
                       doctest::Contains("an epoch that is shuffled"), checkpoint_error);
  CHECK_THROWS_WITH_AS(t.fit(numbers(80), {.batch = 8, .epochs = 9, .seed = 3}), doctest::Contains("the same seed"),
                       checkpoint_error);
  CHECK(t.fit(numbers(80), {.batch = 8, .epochs = 3}).samples == 80 - 32);
}

TEST_CASE("a dataset without an identity is known by its size; what it is shows in the identity of the others") {
  struct plain {
    data::in_memory inner;
    std::int64_t size() const { return inner.size(); }
    std::int64_t predictions_per_sample() const { return 1; }
    void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const { inner.load(indices, out); }
  };
  auto t = trainer_on(2);
  t.fit(plain{numbers(20)}, {.batch = 4, .epochs = 1});
  CHECK(t.fit(plain{numbers(20, 3)}, {.batch = 4, .epochs = 2}).samples == 20);
  CHECK_THROWS_AS(t.fit(plain{numbers(21)}, {.batch = 4, .epochs = 3}), checkpoint_error);
  CHECK(t.fit(numbers(20), {.batch = 4, .epochs = 3}).samples == 20);  // may be the same
  CHECK(numbers(20).identity() == numbers(20).identity());
  CHECK(numbers(20).identity() != numbers(21).identity());
  CHECK(numbers(20).identity() != numbers(20, 1).identity());
  CHECK(data::in_memory({1, 2, 3, 4}, {0, 1}, 2).identity() != data::in_memory({1, 2, 3, 4}, {1, 0}, 2).identity());
}

TEST_CASE("ranks that are given other options or data hear which, and nobody waits") {
  auto const fit = [](auto const& change, std::int64_t samples_of_last = 20) {
    comm::threads(3).run([&](auto& c) {
      bool const last = c.rank() == 2;
      mean_of_values mine;
      train::fit_options o{.batch = 4, .epochs = 2};
      if (last) change(o);
      train::training_loop run(mine, optim::sgd{}, sync::all_reduce{},
                               numbers(last ? static_cast<int>(samples_of_last) : 20), c, o, 1);
      run.run();
    });
  };
  CHECK_NOTHROW(fit([](auto&) {}));
  CHECK_THROWS_WITH_AS(fit([](auto& o) { o.batch = 3; }),
                       "fit: batch is 4 on rank 0 and 3 on rank 2: all ranks must give the same", argument_error);
  CHECK_THROWS_WITH_AS(fit([](auto& o) { o.epochs = 3; }), doctest::Contains("epochs is 2 on rank 0"), argument_error);
  CHECK_THROWS_WITH_AS(fit([](auto& o) { o.seed = 3; }), doctest::Contains("seed is 0 on rank 0"), argument_error);
  CHECK_THROWS_WITH_AS(fit([](auto&) {}, 19), doctest::Contains("data.size() is 20 on rank 0 and 19 on rank 2"),
                       argument_error);
}

TEST_CASE("on_save is called at the end in any case, also if there was nothing to do") {
  for (bool apart : {false, true}) {
    auto const check = [](auto t) {
      int saves = 0;
      io::saved_state last;
      auto const keep = [&](io::saved_state& s) {
        ++saves;
        last = s;
      };
      t.fit(numbers(20), {.batch = 4, .epochs = 1, .on_save = keep});
      CHECK(saves == 1);
      CHECK(last == t.state());
      auto const first = last;
      last = {};
      CHECK(t.fit(numbers(20), {.batch = 4, .epochs = 1, .on_save = keep}).samples == 0);
      CHECK(saves == 2);
      CHECK(last == first);
      t.fit(numbers(20), {.batch = 4, .steps = 1, .on_save = keep});
      CHECK(saves == 3);
      CHECK(t.fit(numbers(20), {.batch = 4, .epochs = 0, .on_save = keep}).samples == 0);
      CHECK(saves == 4);
      std::atomic<bool> stop = true;
      CHECK(t.fit(numbers(20), {.batch = 4, .epochs = 2, .log_every = 1, .stop = &stop, .on_save = keep}).stopped);
      CHECK(saves == 5);
    };
    if (apart)
      check(trainer_on(2, sync::local_sgd{}));
    else
      check(trainer_on(2));
  }
}

TEST_CASE("a callback that asks the trainer for what fit is changing is refused, and told where it is") {
  auto t = trainer_on(2);
  auto const attempt = [&](auto const& ask) {
    CHECK_THROWS_WITH_AS(t.fit(numbers(20), {.batch = 4, .epochs = 1, .on_step = [&](auto const&) { ask(); }}),
                         doctest::Contains("was called while fit runs"), argument_error);
    CHECK_THROWS_WITH_AS(t.fit(numbers(20), {.batch = 4, .epochs = 1, .on_save = [&](auto&) { ask(); }}),
                         doctest::Contains("on_save is given the state of now"), argument_error);
  };
  attempt([&] { t.evaluate(numbers(20)); });
  attempt([&] { t.model(); });
  attempt([&] { std::as_const(t).model(); });
  attempt([&] { t.state(); });
  attempt([&] { t.steps(); });
  attempt([&] { t.restore({}); });
  attempt([&] { t.fit(numbers(20)); });
  CHECK(t.steps() == 0);
  // The weights of now, as the message says.
  mean_of_values now;
  t.fit(numbers(20), {.batch = 4, .epochs = 1, .on_save = [&](io::saved_state& s) {
                        s.restore(train::weights_of(now.parameters()));
                      }});
  CHECK(now.w[0] != 0);
  CHECK(now.w == t.model().w);
}

#if defined(__linux__)
TEST_CASE("a rank of a process that may use one core computes on one") {
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CPU_ZERO(&one);
  for (std::size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  struct counts_threads : mean_of_values {
    std::shared_ptr<int> most = std::make_shared<int>(0);
    loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
      *most = std::max(*most, pass.threads);
      return mean_of_values::gradients(b, pass);
    }
  };
  counts_threads const model;
  train::trainer t{model, optim::sgd{}, sync::all_reduce{}, comm::self{}};
  t.fit(numbers(6), {.batch = 2});
  CHECK(*model.most == 1);
  sched_setaffinity(0, sizeof before, &before);
}
#endif

TEST_CASE("options that cannot work are refused before anything runs") {
  auto t = trainer_on(1);
  auto const refused = [&](train::fit_options const& o) { CHECK_THROWS_AS(t.fit(numbers(20), o), argument_error); };
  refused({.batch = 0});
  refused({.batch = -1});
  refused({.accumulate = 0});
  refused({.epochs = -1});
  refused({.steps = -1});
  refused({.threads = -1});
  refused({.log_every = -1});
  refused({.save_every = -1});
  refused({.max_skipped = 0});
  // Counting the samples of such a step would take for ever.
  static constexpr auto most = std::numeric_limits<std::int64_t>::max();
  refused({.batch = 4, .steps = 1, .accumulate = most});
  refused({.batch = 4, .steps = 1, .accumulate_at = [](auto const&) { return most; }});
  CHECK(t.fit(numbers(20), {.batch = 4, .accumulate = most}).samples == 20);  // here the epoch ends it
  CHECK_THROWS_AS(t.evaluate(numbers(20), 4, -1), argument_error);
  comm::self c;
  mean_of_values m;
  train::fit_options const none{.accumulate = 0};  // a loop of one's own is no way around
  CHECK_THROWS_AS((train::training_loop{m, optim::sgd{}, sync::all_reduce{}, numbers(3), c, none, 1}), argument_error);
}

namespace {

/// Says something of itself that cannot be.
struct lying {
  std::int64_t samples = 20, predictions = 1;
  std::int64_t size() const { return samples; }
  std::int64_t predictions_per_sample() const { return predictions; }
  void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
    out.reset(indices.size(), 1, 0, 1);
    std::fill(out.values.begin(), out.values.end(), 1.0f);
    std::fill(out.targets.begin(), out.targets.end(), 0);
  }
};

/// Whose parameter has a name that the training needs.
struct misnamed : mean_of_values {
  std::string name;
  parameter_list list;
  explicit misnamed(std::string n) : name(std::move(n)) { list.add(name, w, g); }
  misnamed(misnamed const& other) : misnamed(other.name) {}
  misnamed& operator=(misnamed const&) { return *this; }  // its fit is refused: nothing is ever assigned
  parameter_list& parameters() { return list; }
};

}  // namespace

TEST_CASE("a dataset that lies about its sizes is refused") {
  auto t = trainer_on(2);
  for (std::int64_t const n : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()})
    CHECK_THROWS_AS(t.fit(lying{.predictions = n}, {.batch = 4}), argument_error);
  for (std::int64_t const n : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min()})
    CHECK_THROWS_AS(t.fit(lying{.samples = n}, {.batch = 4}), argument_error);
  CHECK_THROWS_WITH_AS(t.evaluate(lying{.samples = -1}), "evaluate: data.size() is -1: it is a number of samples",
                       argument_error);
}

TEST_CASE("a parameter that is called as a piece of the training's state is refused before the first step") {
  for (auto const* name : {"train.position", "train.noise", "optimizer.step"}) {
    train::trainer t{misnamed{name}, optim::momentum{}, sync::all_reduce{}, comm::threads{2}};
    int steps = 0;
    CHECK_THROWS_WITH_AS(t.fit(numbers(20), {.batch = 4, .log_every = 1, .on_step = [&](auto const&) { ++steps; }}),
                         doctest::Contains("give the parameter another name"), argument_error);
    CHECK(steps == 0);
  }
}

TEST_CASE("callbacks and data that take longer than the deadline kill nobody; a rank that is gone is still noticed") {
  struct slow {  // whoever has sample 0 waits for the disk
    data::in_memory inner;
    std::int64_t size() const { return inner.size(); }
    std::int64_t predictions_per_sample() const { return 1; }
    void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
      if (std::find(indices.begin(), indices.end(), 0) != indices.end()) std::this_thread::sleep_for(700ms);
      inner.load(indices, out);
    }
  };
  comm::threads const world(3, {.deadline = 250ms});
  train::trainer t{mean_of_values{}, optim::sgd{.lr = 0.1f}, sync::all_reduce{}, world};
  int saves = 0, steps = 0;
  auto const report = t.fit(slow{numbers(24)}, {.batch = 4,
                                                .epochs = 1,
                                                .on_step =
                                                    [&](auto const&) {
                                                      ++steps;
                                                      std::this_thread::sleep_for(400ms);
                                                    },
                                                .on_save =
                                                    [&](auto&) {
                                                      ++saves;
                                                      std::this_thread::sleep_for(700ms);
                                                    }});
  CHECK(report.samples == 24);
  CHECK(steps == 2);
  CHECK(saves == 1);
  CHECK_THROWS_WITH_AS(t.fit(slow{numbers(24)}, {.batch = 4,
                                                 .epochs = 2,
                                                 .on_save =
                                                     [&](auto&) {
                                                       std::this_thread::sleep_for(400ms);
                                                       throw std::runtime_error("the disk is full");
                                                     }}),
                       "the disk is full", std::runtime_error);
}

}  // namespace train_epochs
