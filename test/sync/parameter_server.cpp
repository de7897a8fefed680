// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "own_codecs.hpp"
#include "server.hpp"

namespace sync_parameter_server {

using namespace dovetail;
using namespace std::chrono_literals;
using rank_of_threads = comm::threads::communicator;
static_assert(synchronizer<sync::parameter_server<>, optim::adagrad, rank_of_threads>);

namespace {

template <class Sync>
void check(Sync const& sync, int ranks, double bound, int victim = -1) {
  CAPTURE(ranks);
  CAPTURE(victim);
  std::vector<std::vector<float>> ends;
  auto const run = [&] {
    comm::threads(ranks, {.deadline = 20s}).run([&](auto& c) {
      auto const o = test::train_logistic(sync, c, victim, [] { throw std::runtime_error("killed"); });
      test::check_outcome(o, c.rank() < sync.servers && sync.servers == 1, victim, ranks - sync.servers, 150, bound);
    });
  };
  if (victim < 0)
    CHECK_NOTHROW(run());
  else
    CHECK_THROWS_WITH_AS(run(), "killed", std::runtime_error);
}

}  // namespace

TEST_CASE("a server and workers of unequal speed train a logistic regression, none waits for another") {
  check(sync::parameter_server{}, 2, 0.2);
  check(sync::parameter_server{}, 4, 0.2);
  check(sync::parameter_server<>{.fetch_every = 3, .push_every = 1}, 4, 0.25);
  check(sync::parameter_server{.codec = compress::bf16{}}, 4, 0.2);
  check(sync::parameter_server{.codec = compress::error_feedback{compress::top_k{.ratio = 0.3f}}}, 4, 0.3);
  check(sync::parameter_server{.codec = compress::ef21{compress::top_k{.ratio = 0.3f}}}, 4, 0.4);
  check(sync::parameter_server{.codec = test::dithered<false>{0.05f}}, 4, 0.3);
}

TEST_CASE("a worker is lost: the server names it and goes on, and so do the others") {
  for (int const victim : {1, 2, 3}) check(sync::parameter_server{}, 4, 0.2, victim);
}

TEST_CASE("two servers keep some tensors each") {
  comm::threads(5).run([&](auto& c) {
    arena a({{"a", {10}}, {"b", {20, 3}}, {"c", {7}}, {"d", {50}}});
    sync::parameter_server const policy{.servers = 2};
    for (float& w : a.weights()) w = static_cast<float>(c.rank());  // the servers' count
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
    CHECK(session.part(0) == range{0, 70});
    CHECK(session.part(1) == range{70, 127});
    if (session.role() == sync::role::serves) {
      auto const r = session.serve();
      CHECK(r.updates == 30);
      CHECK(r.lost.empty());
      return;
    }
    for (int s = 0; s < 10; ++s) {
      session.begin();
      for (float& g : a.gradients()) g = -1;
      session.step();
    }
    session.finish();
    for (std::size_t i = 0; i < 127; ++i) REQUIRE(a.weights()[i] == (i < 70 ? 30.f : 31.f));
  });
}

TEST_CASE("gradients are collected over steps; what is not finite is not sent, and harms nobody") {
  comm::threads(3).run([&](auto& c) {
    arena a({{"a", {40}}});
    auto session = sync::parameter_server{.push_every = 4}.join(a.parameters(), optim::sgd{.lr = 1}, c);
    if (session.role() == sync::role::serves) {
      auto const r = session.serve();
      CHECK(r.updates == 6);
      CHECK(r.skipped == 0);
      return;
    }
    for (int s = 0; s < 10; ++s) {
      session.begin();
      for (float& g : a.gradients()) g = -0.5f;
      if (s == 5) a.gradients()[7] = std::numeric_limits<float>::quiet_NaN();
      CHECK(session.step({.gradient_factor = 2}).skipped == (s == 5));
    }
    session.finish();
    for (float const w : a.weights()) REQUIRE(w == 18);  // 9 gradients of each of two workers
  });
}

TEST_CASE("what cannot be is refused, and a lost server is named") {
  comm::threads(2).run([&](auto& c) {
    arena a({{"a", {4}}});
    auto const refused = [&](auto const& policy, char const* what) {
      CHECK_THROWS_WITH_AS(static_cast<void>(policy.join(a.parameters(), optim::sgd{}, c)), doctest::Contains(what),
                           argument_error);
    };
    refused(sync::parameter_server{.servers = 0}, "0 servers of 2 ranks");
    refused(sync::parameter_server{.servers = 2}, "2 servers of 2 ranks");
    refused(sync::parameter_server<>{.fetch_every = 0}, "fetch_every is 0");
    auto session = sync::parameter_server{}.join(a.parameters(), optim::sgd{}, c);
    if (c.rank() == 0)
      CHECK_THROWS_WITH_AS(session.begin(), doctest::Contains("which serves"), argument_error);
    else
      CHECK_THROWS_WITH_AS(static_cast<void>(session.serve()), doctest::Contains("which trains"), argument_error);
    c.barrier();
  });
  int named = 0;
  CHECK_THROWS_AS(comm::threads(2, {.deadline = 20s}).run([&](auto& c) {
    arena a({{"a", {4}}});
    auto session = sync::parameter_server{}.join(a.parameters(), optim::sgd{}, c);
    if (c.rank() == 0) throw std::runtime_error("killed");
    try {
      session.begin();
    } catch (rank_lost const& e) {
      named = e.rank == 0 ? 1 : -1;
    }
  }),
                  std::runtime_error);
  CHECK(named == 1);
}

TEST_CASE("what each worker sends is decoded by itself, by codecs that add up over ranks elsewhere, too") {
  comm::threads(4).run([](auto& c) {
    arena a({{"a", {40}}});
    sync::parameter_server const policy{.codec = compress::ef21{compress::identity{}}};
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
    if (session.role() == sync::role::serves) {
      CHECK(session.serve().updates == 30);
      CHECK(session.own("").size() > 3);
      return;
    }
    for (int s = 0; s < 10; ++s) {
      session.begin();
      for (float& g : a.gradients()) g = -static_cast<float>(c.rank());
      session.step();
    }
    session.finish();
    for (float const w : a.weights()) REQUIRE(w == 60);  // 10 times 1, 2 and 3
  });
}

TEST_CASE("a worker that ends the communicator ends the service") {
  std::atomic<int> named{0};
  comm::threads(3, {.deadline = 20s}).run([&](auto& c) {
    arena a({{"a", {4}}});
    auto session = sync::parameter_server{}.join(a.parameters(), optim::sgd{}, c);
    try {
      if (c.rank() == 2) c.abort("no licence");
      if (session.role() == sync::role::serves) session.serve();
      for (int s = 0; s < 1000000 && c.rank() == 1; ++s) {
        session.begin();
        session.step();
      }
    } catch (rank_lost const& e) {
      named += e.rank == 2;
    }
  });
  CHECK(named == 2);
}

}  // namespace sync_parameter_server
