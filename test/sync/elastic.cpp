// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A group that loses ranks shrinks and goes on from the last step that it agrees on.
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "elastic.hpp"

namespace sync_elastic {

using namespace dovetail;
using test::loss_of_rank;

namespace {

template <class Sync>
std::vector<test::elastic_outcome> run(Sync const& sync, int ranks, std::vector<loss_of_rank> const& losses) {
  std::vector<test::elastic_outcome> all;
  std::mutex mutex;
  CHECK_THROWS_WITH_AS(comm::threads(ranks, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
    auto const mine = test::train_elastic(sync, c, 12, losses, [] { throw std::runtime_error("out of memory"); });
    std::lock_guard const lock(mutex);
    all.push_back(mine);
  }),
                       "out of memory", std::runtime_error);
  return all;
}

}  // namespace

TEST_CASE(
    "a group of 4 that loses one goes on with 3, wherever in the step it went, with the bits of such a training") {
  for (auto const where : {loss_of_rank::before, loss_of_rank::between, loss_of_rank::behind})
    for (int const lost : {0, 2, 3})
      for (auto const by : {comm::progress::thread, comm::progress::caller}) {
        CAPTURE(lost);
        CAPTURE(static_cast<int>(where));
        sync::all_reduce const dense{.bucket_bytes = 500, .progress = by};
        auto const all = run(dense, 4, {{lost, 5, where}});
        REQUIRE(all.size() == 3);
        for (auto const& o : all) {
          REQUIRE(o.named.size() == 1);
          CHECK(o.named[0].find("rank " + std::to_string(lost)) != std::string::npos);
          CHECK(o.ranks_of == all[0].ranks_of);
          CHECK(o.weights == all[0].weights);
        }
        // Step 5 was made by four ranks if any rank completed it, else by three.
        auto const made_by = all[0].ranks_of[5];
        CHECK((made_by == 4 || (made_by == 3 && where != loss_of_rank::behind)));
        if (where == loss_of_rank::before) CHECK(made_by == 3);
        CHECK(all[0].weights == test::expected_weights(12, [&](std::int64_t s) {
                std::vector<int> alive{0, 1, 2, 3};
                if (all[0].ranks_of[static_cast<std::size_t>(s)] == 3) std::erase(alive, lost);
                return alive;
              }));
      }
}

TEST_CASE("one after another until one is left, and with what codecs keep") {
  std::vector<loss_of_rank> const losses{
      {1, 3, loss_of_rank::between}, {3, 6, loss_of_rank::before}, {0, 8, loss_of_rank::before}};
  auto const dense = run(sync::all_reduce{.bucket_bytes = 500}, 4, losses);
  REQUIRE(dense.size() == 1);
  CHECK(dense[0].ranks_of.back() == 1);
  CHECK(dense[0].weights == test::expected_weights(12, [&](std::int64_t s) {
          auto const n = dense[0].ranks_of[static_cast<std::size_t>(s)];
          return n == 4   ? std::vector{0, 1, 2, 3}
                 : n == 3 ? std::vector{0, 2, 3}
                 : n == 2 ? std::vector{0, 2}
                          : std::vector{2};
        }));
  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.1f}},
                                .plan = sync::exchange::all_gather{},
                                .bucket_bytes = 500};
  for (auto const& o : run(sparse, 4, {{2, 5, loss_of_rank::before}}))
    CHECK(o.weights == run(sparse, 4, {{2, 5, loss_of_rank::before}})[0].weights);
}

namespace {
/// Changes weights and then throws in its third step, on these ranks.
struct breaks_off {
  optim::adamw rule{.lr = 0.01f};
  int rank = 0;
  bool both = false;
  auto init(parameter_list const& p) const { return rule.init(p); }
  template <class State>
  optim::step_result step(parameter_list const& p, State& s, optim::step_context const& context = {}) const {
    auto const r = rule.step(p, s, context);
    if (r.step == 3 && (both || rank == 1)) throw rank_lost("gathering work: rank 7 is lost", 7);
    return r;
  }
};
}  // namespace

TEST_CASE("who was inside of the optimizer takes the weights of a whole step from another rank, if there is one") {
  for (bool const both : {false, true})
    comm::threads(2).run([&](auto& c) {
      auto a = test::odd_arena();
      test::fill(a.weights(), 0, 1000);
      breaks_off const opt{.rank = c.rank(), .both = both};
      sync::all_reduce const sync{.bucket_bytes = 500};
      auto session = sync.join(a.parameters(), opt, c);
      std::int64_t steps = 0;
      try {
        for (; steps < 3; ++steps) {
          session.begin();
          test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(steps));
          session.step();
        }
      } catch (rank_lost const&) {
      }
      CHECK(steps == (both || c.rank() == 1 ? 2 : 3));
      auto rest = c.duplicate();
      auto next = sync.join(a.parameters(), opt, rest);
      if (both) {
        CHECK_THROWS_WITH_AS(sync::regroup(session, next, a.parameters(), steps, rest),
                             doctest::Contains("inside of the optimizer's step 3"), comm_error);
        return;
      }
      auto const r = sync::regroup(session, next, a.parameters(), steps, rest);
      CHECK(r.steps == 3);
      CHECK(r.from == 0);
      CHECK(std::vector<float>(a.weights().begin(), a.weights().end()) == test::expected_weights(3, [](std::int64_t) {
              return std::vector{0, 1};
            }));
    });
}

}  // namespace sync_elastic
