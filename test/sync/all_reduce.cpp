// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"

namespace sync_all_reduce {

using namespace dovetail;
using rank_of_threads = comm::threads::communicator;
static_assert(synchronizer<sync::all_reduce<>, optim::adamw, rank_of_threads>);
static_assert(synchronizer<sync::all_reduce<compress::error_feedback<compress::top_k>>, optim::lamb, rank_of_threads>);
static_assert(synchronizer<sync::all_reduce<compress::without_feedback<compress::sign>, sync::exchange::all_gather>,
                           optim::lars, comm::self>);

namespace {

/// Runs `steps` steps on `ranks` ranks and returns every rank's weights.
template <class Sync>
std::vector<std::vector<float>> train(Sync const& sync, int ranks, int steps, bool scattered = false) {
  std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    test::fill(a.weights(), 0, 1000);
    parameter_list own;
    std::vector<std::vector<float>> memory;
    memory.reserve(2 * a.parameters().size());
    if (scattered)  // the same tensors, each somewhere else
      for (auto& p : a.parameters()) {
        auto& w = memory.emplace_back(p.weight.begin(), p.weight.end());
        auto& g = memory.emplace_back(p.size());
        own.add(p.name, w, g, p.shape);
      }
    auto& list = scattered ? own : a.parameters();
    auto session = sync.join(list, optim::adamw{.lr = 0.01f}, c);
    for (int s = 0; s < steps; ++s) {
      session.begin();
      test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
      for (std::size_t i = list.size(); i-- > 0;) {  // as backward does: from the end, a tensor at a time
        auto const& from = a.parameters()[i].gradient;
        if (scattered) std::copy(from.begin(), from.end(), list[i].gradient.begin());
        session.ready(list.offset(i));
      }
      auto const r = session.step();
      CHECK_FALSE(r.skipped);
      CHECK(r.step == s + 1);
    }
    for (auto const& p : list)
      weights[static_cast<std::size_t>(c.rank())].insert(weights[static_cast<std::size_t>(c.rank())].end(),
                                                         p.weight.begin(), p.weight.end());
  });
  return weights;
}

bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("replicas hold the same bits, whatever the codec and the number of ranks") {
  for (int ranks : {1, 2, 3, 4}) {
    auto const check = [&](auto sync) {
      sync.progress = comm::progress::thread;
      auto const w = train(sync, ranks, 5);
      for (auto const& other : w) CHECK(same_bits(other, w.front()));
      sync.progress = comm::progress::caller;
      CHECK(same_bits(train(sync, ranks, 5).back(), w.front()));
    };
    check(sync::all_reduce{});
    check(sync::all_reduce{compress::bf16{}});
    check(sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.02f}}});
    check(sync::all_reduce{compress::error_feedback{compress::sign{}}, sync::exchange::reduce_scatter_all_gather{}});
  }
}

TEST_CASE("dense results depend neither on bucket sizes nor on where tensors lie, and repeat") {
  auto const expected = train(sync::all_reduce{.bucket_bytes = 1 << 20}, 3, 5);
  for (std::size_t bytes : {std::size_t{1}, std::size_t{200}, std::size_t{3000}})
    CHECK(same_bits(train(sync::all_reduce{.bucket_bytes = bytes}, 3, 5).front(), expected.front()));
  CHECK(same_bits(train(sync::all_reduce{.bucket_bytes = 200}, 3, 5, true).front(), expected.front()));
}

TEST_CASE("buckets are cut from the end, hold whole tensors and cover everything once") {
  auto a = test::odd_arena();
  auto const buckets = sync::cut_buckets(a.parameters(), 1004);
  REQUIRE(buckets.size() == 2);
  CHECK(buckets[0] == range{251, 1254});  // d and e: 4,012 bytes
  CHECK(buckets[1] == range{0, 251});
  CHECK(sync::cut_buckets(a.parameters(), 1).size() == a.parameters().size());
  CHECK(sync::cut_buckets(parameter_list{}, 1000).empty());
  auto const tensors = sync::tensors_in(a.parameters(), {30, 260});  // a slice of b, all of c, a slice of d
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].shape == shape{4});
  CHECK(tensors[1].begin == 4);
  CHECK(tensors[1].shape == shape{7, 31});
  CHECK(tensors[2].shape == shape{9});
}

TEST_CASE("a step's bytes are known before it runs, and are what the communicator counts") {
  auto const check = [](auto const& sync) {
    for (int ranks = 1; ranks <= 8; ++ranks)
      comm::threads(ranks).run([&](auto& c) {
        auto a = test::odd_arena();
        auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
        for (int s = 0; s < 2; ++s) {
          auto const before = c.traffic();
          test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
          session.step();
          auto const moved = c.traffic() - before, predicted = sync.predict(a.parameters(), c.size(), c.rank());
          CHECK(moved.bytes_sent == predicted.bytes_sent);
          CHECK(moved.bytes_received == predicted.bytes_received);
        }
      });
  };
  check(sync::all_reduce{.bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::fp16{}, .bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::bf16{}, .bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::without_feedback{compress::sign{}}, .bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::error_feedback{compress::sign{}}, .bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::without_feedback{compress::top_k{.ratio = 0.1f}}, .bucket_bytes = 500});
  check(sync::all_reduce{.codec = compress::error_feedback{compress::top_k{.ratio = 0.1f}}, .bucket_bytes = 500});
}

TEST_CASE("gradients of a step without predictions have no scale") {
  comm::self c;
  auto a = test::odd_arena();
  auto const session = sync::all_reduce{}.join(a.parameters(), optim::sgd{}, c);
  CHECK(session.gradient_scale(0, 4) == 0.25f);
  CHECK_THROWS_AS(static_cast<void>(session.gradient_scale(0, 0)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(session.gradient_scale(1, -1)), argument_error);
}
TEST_CASE("a gradient that is not finite on one rank makes all ranks skip the step and leaves everything as it was") {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto const check = [&](auto sync) {
      for (auto const by : {comm::progress::thread, comm::progress::caller}) {
        sync.progress = by;
        comm::threads(3).run([&](auto& c) {
          auto a = test::odd_arena();
          test::fill(a.weights(), 0, 1000);
          auto session = sync.join(a.parameters(), optim::adamw{.lr = 0.01f}, c);
          test::fill(a.gradients(), c.rank(), 0);
          session.step();
          std::vector<float> const before(a.weights().begin(), a.weights().end());
          test::fill(a.gradients(), c.rank(), 1);
          if (c.rank() == 1) a.gradients()[700] = bad;
          auto const r = session.step();
          CHECK(r.skipped);
          CHECK(r.step == 1);
          CHECK(same_bits(before, {a.weights().begin(), a.weights().end()}));
          test::fill(a.gradients(), c.rank(), 2);
          CHECK(session.step().step == 2);  // and the next one is a step like any other
          for (float w : a.weights()) REQUIRE(std::isfinite(w));
        });
      }
    };
    check(sync::all_reduce{});
    check(sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.02f}}});
    check(sync::all_reduce{compress::error_feedback{compress::sign{}}});
    check(sync::all_reduce{compress::fp16{}});
  }
}

TEST_CASE("a step that all ranks abandon after some buckets leaves no trace in the next one") {
  auto const weights_after = [](bool abandon, comm::progress by) {
    std::vector<float> result;
    comm::threads(2).run([&](auto& c) {
      auto a = test::odd_arena();
      sync::all_reduce const sync{.bucket_bytes = 500, .progress = by};
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
      if (abandon) {
        session.begin();
        test::fill(a.gradients(), c.rank(), 7);
        session.ready(600);  // and here the model threw, on every rank
      }
      session.begin();
      test::fill(a.gradients(), c.rank(), 1);
      session.ready(600);
      session.step();
      if (c.rank() == 1) result.assign(a.weights().begin(), a.weights().end());
    });
    return result;
  };
  for (auto const by : {comm::progress::thread, comm::progress::caller})
    CHECK(weights_after(true, by) == weights_after(false, by));
}

TEST_CASE("a rank that throws between buckets is named by the others, and the root cause is what run throws") {
  for (auto const by : {comm::progress::thread, comm::progress::caller}) {
    std::mutex mutex;
    std::vector<int> blamed;
    CHECK_THROWS_WITH_AS(comm::threads(3).run([&](auto& c) {
      auto a = test::odd_arena();
      sync::all_reduce const sync{.bucket_bytes = 500, .progress = by};
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
      try {
        for (int s = 0; s < 3; ++s) {
          session.ready(600);
          if (s == 1 && c.rank() == 2) throw std::runtime_error("the disk of rank 2 is full");
          session.step();
        }
      } catch (rank_lost const& e) {
        std::lock_guard const lock(mutex);
        blamed.push_back(e.rank);
        throw;
      }
    }),
                         "the disk of rank 2 is full", std::runtime_error);
    CHECK(blamed == std::vector<int>{2, 2});
  }
}

TEST_CASE("a rule that needs the loss gets that of all ranks, from each rank's share") {
  double const losses[] = {0.25, 0.5, 0.125};
  optim::momo const rule{.lr = 0.5f, .weight_decay = 0.01f};
  auto one = test::odd_arena();
  test::fill(one.weights(), 0, 1000);
  auto state = rule.init(one.parameters());
  for (std::uint64_t s = 0; s < 4; ++s) {
    auto share = test::odd_arena();
    for (int r = 0; r < 3; ++r) {
      test::fill(share.gradients(), r, s);
      for (std::size_t i = 0; i < share.gradients().size(); ++i)
        one.gradients()[i] = (r == 0 ? 0 : one.gradients()[i]) + share.gradients()[i];
    }
    rule.step(one.parameters(), state, {.loss = 0.875 + 3.0 * static_cast<double>(s)});
  }
  comm::threads(3).run([&](auto& c) {
    auto a = test::odd_arena();
    test::fill(a.weights(), 0, 1000);
    auto session = sync::all_reduce{}.join(a.parameters(), rule, c);
    for (std::uint64_t s = 0; s < 4; ++s) {
      session.begin();
      test::fill(a.gradients(), c.rank(), s);
      auto const r = session.step({.loss = losses[c.rank()] + static_cast<double>(s)});
      CHECK(r.step == static_cast<std::int64_t>(s) + 1);
    }
    CHECK(std::memcmp(a.weights().data(), one.weights().data(), a.weights().size_bytes()) == 0);
    // Not finite on one rank: skipped on all.
    session.begin();
    auto const r = session.step({.loss = c.rank() == 1 ? std::numeric_limits<double>::quiet_NaN() : 1});
    CHECK(r.skipped);
    CHECK(std::memcmp(a.weights().data(), one.weights().data(), a.weights().size_bytes()) == 0);
    session.begin();
    CHECK_THROWS_WITH_AS(session.step(), doctest::Contains("needs the loss"), argument_error);
  });
}

TEST_CASE("gradients and weights whose memory moved are followed: rebind between two steps, to one block or apart") {
  comm::threads(2).run([](auto& c) {
    std::vector<float> flat(40), apart_w(16), apart_g(16), w0(24), w1(16);
    parameter_list p;
    p.add("a", w0, std::span(flat).first(24), {24});
    p.add("b", w1, std::span(flat).subspan(24), {16});
    auto session = sync::all_reduce{}.join(p, optim::sgd{.lr = 1}, c);
    auto const step = [&](float value) {
      session.begin();
      for (auto& x : p) std::fill(x.gradient.begin(), x.gradient.end(), value);
      session.step();
    };
    step(1);  // gradients in one block
    CHECK(w1[0] == -2);
    std::copy(w1.begin(), w1.end(), apart_w.begin());
    p.rebind("b", apart_w, apart_g);  // as after a move assignment
    std::fill(flat.begin() + 24, flat.end(), 1000.0f);
    step(1);
    CHECK(apart_w[0] == -4);
    CHECK(w0[0] == -4);
    CHECK(w1[0] == -2);  // nobody writes there any more
    p.rebind("b", apart_w, std::span(flat).subspan(24));
    step(3);
    CHECK(apart_w[15] == -10);
    CHECK(w0[23] == -10);
  });
}

}  // namespace sync_all_reduce
