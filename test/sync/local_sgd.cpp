// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <cmath>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"

namespace sync_local_sgd {

using namespace dovetail;
using rank_of_threads = comm::threads::communicator;
static_assert(synchronizer<sync::local_sgd, optim::adamw, rank_of_threads>);
static_assert(synchronizer<sync::local_sgd, optim::momentum, comm::self>);

namespace {

using values = std::vector<float>;

bool same_bits(values const& a, values const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
values copy_of(parameter_list const& list) {
  values all;
  for (auto const& p : list) all.insert(all.end(), p.weight.begin(), p.weight.end());
  return all;
}

/// odd_arena's tensors, in one block or each somewhere else.
struct tensors {
  arena block = test::odd_arena();
  parameter_list apart;
  std::vector<values> memory;
  parameter_list* list = &block.parameters();

  explicit tensors(bool scattered = false) {
    test::fill(block.weights(), 0, 1000);
    if (!scattered) return;
    memory.reserve(2 * block.parameters().size());
    for (auto& p : block.parameters()) {
      auto& w = memory.emplace_back(p.weight.begin(), p.weight.end());
      auto& g = memory.emplace_back(p.size());
      apart.add(p.name, w, g, p.shape);
    }
    list = &apart;
  }
  void gradients(int rank, int step) {
    test::fill(block.gradients(), rank, static_cast<std::uint64_t>(step));
    for (std::size_t i = 0; i < list->size(); ++i) {
      auto const& from = block.parameters()[i].gradient;
      if (list == &apart) std::copy(from.begin(), from.end(), apart[i].gradient.begin());
    }
  }
};

optim::adamw const rule{.lr = 0.01f};

/// P optimizers without a communicator, averaged by hand.
std::vector<values> by_hand(int ranks, int steps, int every, bool at_the_end) {
  std::vector<tensors> all(static_cast<std::size_t>(ranks));
  for (auto& t : all) t.list = &t.block.parameters();
  std::vector<optim::state> states;
  for (auto& t : all) states.push_back(rule.init(*t.list));
  auto const average = [&] {
    for (std::size_t i = 0; i < all[0].block.weights().size(); ++i) {
      float sum = all[0].block.weights()[i];
      for (std::size_t r = 1; r < all.size(); ++r) sum += all[r].block.weights()[i];
      for (auto& t : all) t.block.weights()[i] = sum / static_cast<float>(ranks);
    }
  };
  for (int s = 0; s < steps; ++s) {
    for (std::size_t r = 0; r < all.size(); ++r) {
      all[r].gradients(static_cast<int>(r), s);
      rule.step(*all[r].list, states[r]);
    }
    if (every && (s + 1) % every == 0) average();
  }
  if (at_the_end) average();
  std::vector<values> weights;
  for (auto& t : all) weights.push_back(copy_of(*t.list));
  return weights;
}

/// Every rank's weights behind the steps, and behind finish().
std::pair<std::vector<values>, std::vector<values>> by_session(int ranks, int steps, int every, bool scattered) {
  std::vector<values> apart(static_cast<std::size_t>(ranks)), finished(static_cast<std::size_t>(ranks));
  comm::threads(ranks).run([&](auto& c) {
    tensors t(scattered);
    auto session = sync::local_sgd{.every = every}.join(*t.list, rule, c);
    for (int s = 0; s < steps; ++s) {
      session.begin();
      t.gradients(c.rank(), s);
      session.ready(0);
      CHECK(session.step().step == s + 1);
    }
    auto const r = static_cast<std::size_t>(c.rank());
    apart[r] = copy_of(*t.list);
    session.finish();
    finished[r] = copy_of(*t.list);
  });
  return {apart, finished};
}

}  // namespace

TEST_CASE("ranks train apart, and the mean is that of optimizers averaged by hand, bit for bit") {
  for (int ranks : {1, 2, 3, 4})
    for (int every : {0, 1, 3})
      for (bool scattered : {false, true}) {
        CAPTURE(ranks);
        CAPTURE(every);
        auto const [apart, finished] = by_session(ranks, 7, every, scattered);
        auto const expected = by_hand(ranks, 7, every, false), mean = by_hand(ranks, 7, every, true);
        for (std::size_t r = 0; r < apart.size(); ++r) {
          CHECK(same_bits(apart[r], expected[r]));
          CHECK(same_bits(finished[r], mean[r]));
          if (r && every != 1) CHECK_FALSE(same_bits(apart[r], apart[0]));
        }
      }
}

TEST_CASE("asking for the mean on the way changes nothing, and own state is what a rank goes on with") {
  auto const expected = by_session(3, 6, 4, false);
  comm::threads(3).run([&](auto& c) {
    tensors t, u;
    sync::local_sgd const policy{.every = 4};
    auto session = policy.join(*t.list, rule, c);
    auto const go = [&](auto& s, tensors& of, int from, int to) {
      for (int step = from; step < to; ++step) {
        s.begin();
        of.gradients(c.rank(), step);
        s.step();
      }
    };
    go(session, t, 0, 2);
    auto const before = copy_of(*t.list);
    session.finish();
    auto const mean = copy_of(*t.list);
    session.finish();  // once more
    CHECK(same_bits(copy_of(*t.list), mean));
    session.begin();
    CHECK(same_bits(copy_of(*t.list), before));
    // Another session takes up what this one has of its own, in the middle between two means.
    auto next = policy.join(*u.list, rule, c);
    auto const from = session.own("x."), to = next.own("x.");
    REQUIRE(from.size() == to.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      CHECK(from[i].name == to[i].name);
      REQUIRE(from[i].bytes.size() == to[i].bytes.size());
      std::memcpy(to[i].bytes.data(), from[i].bytes.data(), from[i].bytes.size());
    }
    CHECK(session.replicated("").empty());
    next.finish();  // and has the same mean
    CHECK(same_bits(copy_of(*u.list), mean));
    session.begin();
    CHECK(same_bits(copy_of(*t.list), before));
    go(session, t, 2, 6);
    go(next, u, 2, 6);
    auto const r = static_cast<std::size_t>(c.rank());
    CHECK(same_bits(copy_of(*t.list), expected.first[r]));
    CHECK(same_bits(copy_of(*u.list), expected.first[r]));
    session.own("");  // listing it is no reason to forget it
    session.finish();
    CHECK(same_bits(copy_of(*t.list), expected.second[r]));
  });
}

TEST_CASE("a gradient that is not finite makes its rank alone skip, and the mean is taken in the same step by all") {
  comm::threads(3).run([&](auto& c) {
    tensors t;
    auto session = sync::local_sgd{.every = 3}.join(*t.list, optim::sgd{.lr = 0.1f}, c);
    for (int s = 0; s < 3; ++s) {
      auto const before = copy_of(*t.list);
      session.begin();
      t.gradients(c.rank(), s);
      bool const bad = c.rank() == 1 && s == 1;
      if (bad) t.block.gradients()[700] = NAN;
      auto const r = session.step();
      CHECK(r.skipped == bad);
      CHECK(r.step == (c.rank() == 1 && s > 0 ? s : s + 1));
      if (s < 2) CHECK(same_bits(before, copy_of(*t.list)) == bad);
    }
    auto const mine = copy_of(*t.list);
    values first = mine;
    c.broadcast(std::span<float>(first), 0);
    CHECK(same_bits(first, mine));
    for (float w : mine) REQUIRE(std::isfinite(w));
  });
}

TEST_CASE("steps apart move nothing; the bytes of a mean are known before it is taken") {
  for (bool scattered : {false, true})
    for (int ranks = 1; ranks <= 5; ++ranks)
      comm::threads(ranks).run([&](auto& c) {
        tensors t(scattered);
        sync::local_sgd const policy{.every = 2};
        auto session = policy.join(*t.list, rule, c);
        for (int s = 0; s < 4; ++s) {
          auto const before = c.traffic();
          session.begin();
          t.gradients(c.rank(), s);
          session.step();
          auto const none = comm::traffic{};
          CHECK(c.traffic() - before == (s % 2 ? policy.predict(*t.list, c.size(), c.rank()) : none));
        }
        auto const before = c.traffic();
        session.finish();
        CHECK(c.traffic() - before == policy.predict(*t.list, c.size(), c.rank()));
      });
}

TEST_CASE("a rank that does not come to the mean is named by the others") {
  std::mutex mutex;
  std::vector<int> blamed;
  CHECK_THROWS_WITH_AS(comm::threads(3).run([&](auto& c) {
    tensors t;
    auto session = sync::local_sgd{}.join(*t.list, rule, c);
    try {
      for (int s = 0; s < 3; ++s) {
        session.begin();
        t.gradients(c.rank(), s);
        if (s == 1 && c.rank() == 2) throw std::runtime_error("the disk of rank 2 is full");
        session.step();
      }
      session.finish();
    } catch (rank_lost const& e) {
      std::lock_guard const lock(mutex);
      blamed.push_back(e.rank);
      throw;
    }
  }),
                       "the disk of rank 2 is full", std::runtime_error);
  CHECK(blamed == std::vector<int>{2, 2});
}

TEST_CASE("what local SGD cannot do it says") {
  comm::self alone;
  tensors t;
  CHECK_THROWS_WITH_AS((sync::local_sgd{.every = -1}.join(*t.list, rule, alone)), doctest::Contains("every is -1"),
                       argument_error);
  parameter_list halves;
  halves.add_opaque("a", {5});
  CHECK_THROWS_WITH_AS((sync::local_sgd{}.join(halves, optim::frozen{}, alone)),
                       doctest::Contains("some weights are not in the list"), argument_error);
}

}  // namespace sync_local_sgd
