// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync/all_reduce.hpp>
#include <dovetail/sync/bucket_exchange.hpp>

#include <map>
#include <mutex>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"

namespace sync_exchange {

using namespace dovetail;
namespace exchange = sync::exchange;

// The choice is the codec's algebra, known before anything runs.
static_assert(exchange::all_reduce_is_legal<compress::identity> && exchange::all_reduce_is_legal<compress::fp16>);
static_assert(!exchange::all_reduce_is_legal<compress::sign> && exchange::reduce_scatter_is_legal<compress::sign>);
static_assert(exchange::reduce_scatter_is_legal<compress::error_feedback<compress::top_k>>);

namespace {

struct outcome {
  std::vector<float> values;
  exchange::plan plan;
};

/// One exchange of all of an odd arena's gradients on `ranks` thread ranks.
template <class Wish, class Codec>
std::map<int, outcome> exchange_on(Codec const& codec, int ranks) {
  std::map<int, outcome> all;
  std::mutex mutex;
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    auto& p = a.parameters();
    range const whole{0, p.flat_size()};
    auto const tensors = sync::tensors_in(p, whole);
    auto const plan = exchange::choose<Wish>(codec, {a.gradients(), tensors}, c.size());
    sync::bucket_exchange<Codec> bucket(codec, plan, p, whole, a.gradients(), c.size(), c.rank());
    test::fill(a.gradients(), c.rank(), 0);
    bucket.run(c, a.gradients());
    std::lock_guard const lock(mutex);
    all[c.rank()] = {{a.gradients().begin(), a.gradients().end()}, plan};
  });
  return all;
}

std::vector<float> exact_sum(int ranks, std::uint64_t step) {
  auto a = test::odd_arena();
  std::vector<float> sum(a.gradients().size());
  for (int r = 0; r < ranks; ++r) {
    test::fill(a.gradients(), r, step);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += a.gradients()[i];
  }
  return sum;
}

}  // namespace

TEST_CASE("the sum is the sum in rank order for identity, whichever way it travels") {
  for (int ranks : {1, 2, 3, 5}) {
    auto const expected = exact_sum(ranks, 0);
    CHECK(exchange_on<exchange::automatic>(compress::identity{}, ranks).at(0).values == expected);
    CHECK(exchange_on<exchange::all_gather>(compress::identity{}, ranks).at(0).values == expected);
  }
}

TEST_CASE("the automatic choice takes the exchange with fewer bytes") {
  compress::sign const codec;
  auto const plan_on = [&](int ranks) { return exchange_on<exchange::automatic>(codec, ranks).at(0).plan; };
  CHECK(plan_on(2) == exchange::plan::all_gather);                 // as many bytes, one loss less
  CHECK(plan_on(8) == exchange::plan::reduce_scatter_all_gather);  // 7 payloads against 2 · 7/8 of one
  CHECK(exchange_on<exchange::automatic>(compress::fp16{}, 8).at(0).plan == exchange::plan::all_reduce);
}

TEST_CASE("what error feedback withholds is paid later: over many steps the sums agree") {
  // With k of n elements a step and gradients that repeat, every element must come through in the end.
  compress::error_feedback const codec{compress::top_k{.ratio = 0.05f}};
  int const ranks = 3, steps = 400;
  std::vector<double> delivered, wanted;
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    range const whole{0, a.gradients().size()};
    sync::bucket_exchange<compress::error_feedback<compress::top_k>> bucket(
        codec, exchange::plan::all_gather, a.parameters(), whole, a.gradients(), c.size(), c.rank());
    std::vector<double> sum(a.gradients().size());
    for (int s = 0; s < steps; ++s) {
      test::fill(a.gradients(), c.rank(), 0);
      bucket.run(c, a.gradients());
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(a.gradients()[i]);
    }
    if (c.rank() == 0) delivered = sum;
  });
  auto const once = exact_sum(ranks, 0);
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < once.size(); ++i) {
    worst = std::max(worst, std::fabs(delivered[i] - steps * static_cast<double>(once[i])));
    largest = std::max(largest, std::fabs(steps * static_cast<double>(once[i])));
  }
  CHECK(worst < 0.25 * largest);  // the debt is bounded, it does not grow with the steps
  CHECK(worst > 0);
}

TEST_CASE("a codec of three stages is one within another") {
  compress::after const codec{1, compress::identity{}, compress::after{2, compress::fp16{}, compress::int8{}}};
  comm::threads(3).run([&](auto& c) {
    auto a = test::odd_arena();
    sync::all_reduce const policy{codec};
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
    std::uint64_t last = ~std::uint64_t{0};
    for (std::int64_t step = 0; step < 3; ++step) {
      auto const before = c.traffic();
      session.begin();
      test::fill(a.gradients(), c.rank(), 0);
      session.ready(0);
      session.step();
      auto const sent = (c.traffic() - before).bytes_sent;
      CHECK(sent == policy.predict(a.parameters(), c.size(), c.rank(), step).bytes_sent);
      CHECK(sent < last);  // fewer with each stage
      last = sent;
    }
  });
}

}  // namespace sync_exchange
