// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/data/loader.hpp>
#include <dovetail/data/memory.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace data_loader {

using namespace dovetail;

namespace {

/// Sample i has target i: what was loaded can be read off.
struct counting {
  std::int64_t samples;
  std::int64_t predictions = 1;
  std::int64_t size() const { return samples; }
  std::int64_t predictions_per_sample() const { return predictions; }
  void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
    out.reset(indices.size(), 0, 0, 1);
    std::transform(indices.begin(), indices.end(), out.targets.begin(),
                   [](std::int64_t i) { return static_cast<std::int32_t>(i); });
  }
};
static_assert(data::dataset<counting>);

std::vector<std::int32_t> samples(data::loaded_batch const& b) {
  return {b.view.targets.begin(), b.view.targets.end()};
}

using list = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("an epoch's order is a permutation and a pure function of seed and epoch") {
  std::vector<std::int64_t> a, b;
  data::epoch_order(1000, 7, 3, true, a);
  data::epoch_order(1000, 7, 3, true, b);
  CHECK(a == b);
  CHECK(std::set<std::int64_t>(a.begin(), a.end()).size() == 1000);
  CHECK(*std::max_element(a.begin(), a.end()) == 999);
  data::epoch_order(1000, 7, 4, true, b);
  CHECK(a != b);
  data::epoch_order(1000, 8, 3, true, b);
  CHECK(a != b);
  data::epoch_order(3, 8, 3, false, b);
  CHECK(b == std::vector<std::int64_t>{0, 1, 2});
}

TEST_CASE("every permutation of four is about equally frequent") {
  std::vector<int> seen(256);
  std::vector<std::int64_t> o;
  for (int epoch = 0; epoch < 24000; ++epoch) {
    data::epoch_order(4, 1, epoch, true, o);
    ++seen[static_cast<std::size_t>(o[0] * 64 + o[1] * 16 + o[2] * 4 + o[3])];
  }
  double chi2 = 0;
  int kinds = 0;
  for (int const n : seen)
    if (n) chi2 += (n - 1000.0) * (n - 1000.0) / 1000.0, ++kinds;
  CHECK(kinds == 24);
  CHECK(chi2 < 50);  // 23 degrees of freedom: 49.7 is exceeded once in a thousand
}

TEST_CASE("each epoch visits every sample once, with and without the prefetching thread") {
  for (bool const prefetch : {false, true}) {
    data::loader l{counting{10, 5}, {.batch = 4, .seed = 1, .prefetch = prefetch}};
    CHECK(l.steps_per_epoch() == 3);
    CHECK(l.samples() == 10);
    list first_epoch;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      list all;
      for (std::int64_t s = 0; s < 3; ++s) {
        CHECK(l.position() == 10 * epoch + 4 * s);
        auto const b = l.next();
        CHECK(b.epoch == epoch);
        CHECK(b.position == 10 * epoch + 4 * s);
        CHECK(b.view.size == (s < 2 ? 4 : 2));
        CHECK(b.global_predictions == 5 * b.view.size);
        for (auto const i : samples(b)) all.push_back(i);
      }
      if (epoch == 0)
        first_epoch = all;
      else
        CHECK(all != first_epoch);
      std::sort(all.begin(), all.end());
      CHECK(all == list{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    }
  }
}

TEST_CASE("P ranks with batch B see the samples of one rank with P·B, in the same order, last slices included") {
  for (std::int64_t const n : {24, 25, 27, 31, 101})
    for (int const ranks : {2, 3, 4}) {
      data::loader one{counting{n}, {.batch = 2 * ranks, .seed = 5, .prefetch = false}};
      std::vector<data::loader<counting>> many;
      for (int r = 0; r < ranks; ++r)
        many.emplace_back(counting{n}, data::loader_options{.batch = 2, .rank = r, .ranks = ranks, .seed = 5});
      for (std::int64_t s = 0; s < 2 * one.steps_per_epoch(); ++s) {
        auto const whole = one.next();
        list joined;
        std::size_t least = 99, most = 0;
        for (auto& l : many) {
          auto const part = l.next();
          CHECK(part.position == whole.position);
          CHECK(part.epoch == whole.epoch);
          CHECK(part.global_predictions == whole.global_predictions);
          auto const mine = samples(part);
          joined.insert(joined.end(), mine.begin(), mine.end());
          least = std::min(least, mine.size());
          most = std::max(most, mine.size());
        }
        CHECK(joined == samples(whole));
        CHECK(most <= least + 1);  // at the end of an epoch a share may be empty, but none is much larger
      }
    }
}

TEST_CASE("a rank's share of the last slice may be empty") {
  data::loader l{counting{5}, {.batch = 2, .rank = 1, .ranks = 2, .shuffle = false}};
  CHECK(samples(l.next()) == list{2, 3});
  auto const last = l.next();
  CHECK(last.view.size == 0);
  CHECK(last.view.targets.empty());
  CHECK(last.global_predictions == 1);
}

TEST_CASE("in an order of its own every rank sees all samples of an epoch, rank 0 as a single rank does") {
  std::vector<list> orders;
  for (int rank = 0; rank < 3; ++rank) {
    data::loader_options const o{.batch = 4, .rank = rank, .ranks = 3, .seed = 5, .own_order = true};
    data::loader own{counting{23}, o};
    data::loader single{counting{23}, {.batch = 4, .seed = 5}};
    CHECK(own.steps_per_epoch() == 6);
    for (int epoch = 0; epoch < 2; ++epoch) {
      auto& order = orders.emplace_back();
      for (std::int64_t s = 6 * epoch; s < 6 * epoch + 6; ++s) {
        auto const at = own.position();
        auto const n = own.samples_at(at);
        CHECK(n.own == (s % 6 == 5 ? 3 : 4));
        CHECK(n.all == 3 * n.own);
        CHECK(n.positions == n.own);
        auto const b = own.next();
        CHECK(b.view.size == n.own);
        CHECK(b.global_predictions == n.all);
        CHECK((samples(b) == samples(single.next())) == (rank == 0));
        data::loader_options from = o;
        from.start = at;
        CHECK(samples(data::loader{counting{23}, from}.next()) == samples(b));
        auto const mine = samples(b);
        order.insert(order.end(), mine.begin(), mine.end());
      }
      CHECK(std::set<std::int32_t>(order.begin(), order.end()).size() == 23);
    }
  }
  CHECK(std::set<list>(orders.begin(), orders.end()).size() == 6);
  CHECK_NOTHROW((data::loader{counting{3}, {.batch = 3, .rank = 3, .ranks = 4, .own_order = true}}));
}

TEST_CASE("a step's samples are counted before it is loaded") {
  for (int const ranks : {1, 2, 3}) {
    std::vector<data::loader<counting>> all;
    for (int r = 0; r < ranks; ++r)
      all.emplace_back(counting{25, 5}, data::loader_options{.batch = 4, .rank = r, .ranks = ranks});
    for (std::int64_t s = 0; s < 2 * all[0].steps_per_epoch(); ++s)
      for (auto& l : all) {
        auto const n = l.samples_at(l.position());
        auto const b = l.next();
        CHECK(l.position() == b.position + n.positions);
        CHECK(n.own == b.view.size);
        CHECK(5 * n.all == b.global_predictions);
      }
  }
}

TEST_CASE("a loader started where another one stands continues as that one, with whatever batch and ranks") {
  for (bool const prefetch : {false, true})
    for (std::int64_t start = 0; start < 60; ++start) {
      std::vector<std::int64_t> orders, order;
      for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
        data::epoch_order(23, 9, epoch, true, order);
        orders.insert(orders.end(), order.begin(), order.end());
      }
      for (int const ranks : {1, 2, 3}) {
        std::vector<data::loader<counting>> all;
        for (int r = 0; r < ranks; ++r)
          all.emplace_back(counting{23},
                           data::loader_options{
                               .batch = 3, .rank = r, .ranks = ranks, .seed = 9, .start = start, .prefetch = prefetch});
        auto at = start;
        std::int64_t steps = 0;
        for (; at < 69; ++steps) {
          CHECK(all[0].steps_between(start, at) == steps);
          list got;
          for (auto& l : all) {
            CHECK(l.position() == at);
            auto const b = l.next();
            CHECK(b.position == at);
            CHECK(b.epoch == at / 23);
            auto const mine = samples(b);
            got.insert(got.end(), mine.begin(), mine.end());
          }
          CHECK(got.size() == static_cast<std::size_t>(std::min<std::int64_t>(3 * ranks, 23 - at % 23)));
          for (auto const s : got) REQUIRE(s == orders[static_cast<std::size_t>(at++)]);
        }
        CHECK(at == 69);
        CHECK(all[0].steps_between(start, 69) == steps);
        CHECK(all[0].steps_between(69, start) == 0);
      }
    }
}

TEST_CASE("a batch stays as it is until the following next()") {
  data::loader l{counting{1000}, {.batch = 10, .shuffle = false}};
  for (std::int32_t s = 0; s < 50; ++s) {
    auto const b = l.next();
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // the thread fills the other buffer meanwhile
    for (std::int32_t i = 0; i < 10; ++i) REQUIRE(b.view.targets[static_cast<std::size_t>(i)] == 10 * s + i);
  }
}

TEST_CASE("the following batch is loaded while this one is used") {
  struct watched : counting {
    std::shared_ptr<std::atomic<int>> loads = std::make_shared<std::atomic<int>>(0);
    void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
      counting::load(indices, out);
      ++*loads;
    }
  };
  watched w{{100}};
  auto const loads = w.loads;
  data::loader l{w, {.batch = 10}};
  l.next();
  for (int wait = 0; wait < 5000 && *loads < 2; ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(*loads == 2);
}

TEST_CASE("what a dataset throws comes out of next(), every time, and nothing hangs") {
  struct broken : counting {
    void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
      for (auto const i : indices) require<input_error>(i < 20, "sample ", i, " is rotten");
      counting::load(indices, out);
    }
  };
  for (bool const prefetch : {false, true}) {
    data::loader l{broken{{100}}, {.batch = 10, .shuffle = false, .prefetch = prefetch}};
    CHECK(samples(l.next()).front() == 0);
    CHECK(samples(l.next()).front() == 10);
    CHECK_THROWS_WITH_AS(l.next(), "sample 20 is rotten", input_error);
    CHECK_THROWS_WITH_AS(l.next(), "sample 20 is rotten", input_error);
  }
  // Also a dataset that would not throw a second time: its failure is not forgotten.
  struct once : counting {
    std::shared_ptr<std::atomic<int>> loads = std::make_shared<std::atomic<int>>(0);
    void load(std::span<std::int64_t const> indices, data::batch_buffer& out) const {
      require<input_error>(++*loads != 2, "the cable was out");
      counting::load(indices, out);
    }
  };
  for (bool const prefetch : {false, true}) {
    data::loader l{once{{100}}, {.batch = 10, .shuffle = false, .prefetch = prefetch}};
    CHECK(samples(l.next()).front() == 0);
    for (int i = 0; i < 3; ++i) CHECK_THROWS_WITH_AS(l.next(), "the cable was out", input_error);
    CHECK(l.position() == 10);
  }
}

TEST_CASE("loaders can be dropped and moved at any moment") {
  for (int i = 0; i < 200; ++i) {
    data::loader a{counting{50}, {.batch = 5, .shuffle = false}};
    if (i % 2) a.next();
    auto b = std::move(a);
    CHECK(samples(b.next()).front() == (i % 2 ? 5 : 0));
  }
}

TEST_CASE("options that do not fit are refused with their values") {
  auto const make = [](data::loader_options o) { data::loader{counting{100}, o}; };
  CHECK_THROWS_WITH_AS(make({.batch = 0}), "loader: batch is 0: it must be at least 1 sample per rank", argument_error);
  CHECK_THROWS_WITH_AS(
      make({.batch = 101}),
      "loader: 1 rank(s) × batch 101 is more than the 100 samples of the dataset: use a batch of at most 100",
      argument_error);
  CHECK_THROWS_WITH_AS(
      make({.batch = 60, .rank = 1, .ranks = 2}),
      "loader: 2 rank(s) × batch 60 is more than the 100 samples of the dataset: use a batch of at most 50",
      argument_error);
  CHECK_THROWS_AS(make({.batch = std::int64_t{1} << 62, .ranks = 4}), argument_error);  // the product would overflow
  CHECK_THROWS_AS(make({.batch = 1, .ranks = 0}), argument_error);
  CHECK_THROWS_AS(make({.batch = 1, .rank = 2, .ranks = 2}), argument_error);
  CHECK_THROWS_AS(make({.batch = 1, .rank = -1, .ranks = 2}), argument_error);
  CHECK_THROWS_AS(make({.batch = 1, .start = -1}), argument_error);
  CHECK_THROWS_AS(make({.batch = 1, .start = std::numeric_limits<std::int64_t>::max()}), argument_error);
  CHECK_THROWS_AS((data::loader{counting{0}, {.batch = 1}}), argument_error);
  CHECK_THROWS_AS((data::loader{counting{3}, {.batch = 1, .ranks = 4}}), argument_error);
}

}  // namespace data_loader
