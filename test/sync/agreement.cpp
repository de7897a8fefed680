// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What ranks must have in common before they train together, and that buckets of different steps are never mixed.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

namespace sync_agreement {

using namespace dovetail;

namespace {

using tensors = std::vector<named_shape>;

tensors const usual{{"0.weight", {4, 6}}, {"0.bias", {4}}, {"2.weight", {3, 4}}, {"2.bias", {3}}};

/// What each of three ranks throws when rank `odd` has another list than the others.
template <class Join>
std::vector<std::string> refusals(tensors const& other, int odd, Join const& join, int ranks = 3) {
  std::vector<std::string> said(static_cast<std::size_t>(ranks));
  comm::threads(ranks, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
    arena a(c.rank() == odd ? other : usual);
    try {
      join(a.parameters(), c);
    } catch (argument_error const& e) {
      said[static_cast<std::size_t>(c.rank())] = e.what();
    }
    c.barrier();  // the communicator is whole
  });
  return said;
}

template <class Join>
void check_refused(Join const& join) {
  struct wrong {
    tensors list;
    std::string expected;
  };
  std::string const register_same = ": register the same tensors in the same order on every rank";
  std::vector<wrong> const all{
      {{{"0.weight", {4, 6}}, {"2.weight", {3, 4}}, {"0.bias", {4}}, {"2.bias", {3}}},  // order
       "tensor 1 is '0.bias' {4} on rank 0 and '2.weight' {3, 4} on rank "},
      {{{"0.weight", {6, 4}}, {"0.bias", {4}}, {"2.weight", {3, 4}}, {"2.bias", {3}}},  // a shape of the same size
       "tensor 0 is '0.weight' {4, 6} on rank 0 and '0.weight' {6, 4} on rank "},
      {{{"0.weight", {4, 6}}, {"0.bias", {4}}, {"2.weight", {3, 4}}, {"2.Bias", {3}}},  // a name
       "tensor 3 is '2.bias' {3} on rank 0 and '2.Bias' {3} on rank "},
      {{{"0.weight", {4, 6}}, {"0.bias", {4}}, {"2.weight", {3, 4}}},  // one less
       "tensor 3 is '2.bias' {3} on rank 0 and nothing, it has 3 tensors on rank "},
      {{{"0.weight", {4, 6}}, {"0.bias", {4}}, {"2.weight", {3, 4}}, {"2.bias", {3}}, {"4.bias", {1}}},
       "tensor 4 is nothing, it has 4 tensors on rank 0 and '4.bias' {1} on rank "},
      {{}, "tensor 0 is '0.weight' {4, 6} on rank 0 and nothing, it has 0 tensors on rank "},
      {{{"0.weight", {24}}, {"0.bias", {4}}, {"2.weight", {3, 4}}, {"2.bias", {3}}},
       "tensor 0 is '0.weight' {4, 6} on rank 0 and '0.weight' {24} on rank "}};
  for (auto const& w : all)
    for (int odd : {1, 2}) {
      CAPTURE(w.expected);
      for (auto const& said : refusals(w.list, odd, join))
        CHECK(said.find(message(": the ranks do not have the same parameters: ", w.expected, odd, register_same)) !=
              std::string::npos);
    }
  for (auto const& said : refusals(all[0].list, 0, join))  // rank 0 is the odd one
    CHECK(said.find("tensor 1 is '0.bias' {4} on rank 1 and '2.weight' {3, 4} on rank 0") != std::string::npos);
  for (auto const& said : refusals(all[0].list, 1, join, 2)) CHECK(!said.empty());
  for (auto const& said : refusals(usual, 1, join)) CHECK(said.empty());
}

}  // namespace

TEST_CASE("ranks whose parameters differ in order, names or shapes are refused when they join, and both are named") {
  check_refused([](auto& p, auto& c) { sync::all_reduce{}.join(p, optim::sgd{}, c); });
  check_refused([](auto& p, auto& c) { sync::local_sgd{}.join(p, optim::sgd{}, c); });
  check_refused([](auto& p, auto& c) { sync::shard(optim::sgd{}, c).init(p); });
  check_refused([](auto& p, auto& c) { sync::make_equal(p, c); });
  check_refused([](auto& p, auto& c) {
    auto f = sync::summed([](parameter_list&) { return 0.0; }, c);
    f(p);
  });
}

TEST_CASE("a matrix by columns on one rank and its transpose by rows on another are not the same") {
  std::vector<std::string> said(2);
  comm::threads(2).run([&](auto& c) {
    std::vector<float> w(6), g(6);
    parameter_list list;
    if (c.rank() == 0)
      list.add("w", w, g, {2, 3}, layout::column_major);
    else
      list.add("w", w, g, {3, 2});
    try {
      sync::require_same_list(list, c);
    } catch (argument_error const& e) {
      said[static_cast<std::size_t>(c.rank())] = e.what();
    }
  });
  for (auto const& s : said)
    CHECK(s.find("tensor 0 is 'w' {2, 3} column-major on rank 0 and 'w' {3, 2} on rank 1") != std::string::npos);
}

TEST_CASE("unequal starting weights are named where one asks for it, and make_equal makes them equal") {
  for (int ranks : {1, 2, 4})
    for (int root = 0; root < ranks; ++root)
      comm::threads(ranks).run([&](auto& c) {
        arena a(usual);
        std::fill(a.weights().begin(), a.weights().end(), 0.5f);
        CHECK_NOTHROW((sync::all_reduce{.check_equal = true}.join(a.parameters(), optim::sgd{}, c)));
        a.parameters()[2].weight[7] = 0.5f + 1e-7f * static_cast<float>(c.rank() == root);
        if (ranks > 1) {
          auto const expected = doctest::Contains("start from different weights: those of '2.weight'");
          CHECK_THROWS_WITH_AS((sync::all_reduce{.check_equal = true}.join(a.parameters(), optim::sgd{}, c)), expected,
                               argument_error);
          CHECK_THROWS_WITH_AS((sync::local_sgd{.check_equal = true}.join(a.parameters(), optim::sgd{}, c)), expected,
                               argument_error);
          CHECK_NOTHROW(sync::all_reduce{}.join(a.parameters(), optim::sgd{}, c));  // who does not ask is not told
        }
        std::vector<std::vector<float>> memory;  // also tensors that lie apart
        parameter_list apart;
        for (auto& p : a.parameters()) {
          auto& w = memory.emplace_back(p.weight.begin(), p.weight.end());
          apart.add(p.name, w, p.gradient, p.shape);
        }
        sync::make_equal(apart, c, root);
        sync::make_equal(a.parameters(), c, root);
        CHECK(a.weights()[35] == 0.5f + 1e-7f);
        CHECK(memory[2][7] == 0.5f + 1e-7f);
        CHECK_NOTHROW((sync::all_reduce{.check_equal = true}.join(a.parameters(), optim::sgd{}, c)));
      });
  comm::self alone;
  arena a(usual);
  CHECK_THROWS_WITH_AS(sync::make_equal(a.parameters(), alone, 1), doctest::Contains("root is rank 1"), argument_error);
  CHECK_THROWS_AS(sync::make_equal(a.parameters(), alone, -1), argument_error);
}

TEST_CASE("unequal hyperparameters are named, with both values, where one asks for it") {
  auto const said = [](auto const& join) {
    std::vector<std::string> all(3);
    comm::threads(3, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
      arena a(usual);
      try {
        join(a.parameters(), c, c.rank() == 2);
      } catch (argument_error const& e) {
        all[static_cast<std::size_t>(c.rank())] = e.what();
      }
      c.barrier();
    });
    CHECK(all[0] == all[1]);
    CHECK(all[0] == all[2]);
    return all[0];
  };
  sync::all_reduce const checked{.check_equal = true};
  CHECK(said([&](auto& p, auto& c, bool odd) { checked.join(p, optim::adamw{.beta2 = odd ? 0.95f : 0.999f}, c); }) ==
        "sync::all_reduce: the ranks have different hyperparameters: adamw.beta2 is 0.999 on rank 0 and 0.95 "
        "on rank 2: give all ranks the same");
  CHECK(said([&](auto& p, auto& c, bool odd) {
          checked.join(p, optim::sgd{.lr = odd ? 0.2f : 0.1f}, c);
        }).find("learning rate.in step 1 is 0.1 on rank 0 and 0.2 on rank 2") != std::string::npos);
  CHECK(said([&](auto& p, auto& c, bool odd) {
          checked.join(p, optim::sgd{.lr = optim::cosine{.initial = 0.1f, .steps = odd ? 200 : 100}}, c);
        }).find("learning rate.in step ") != std::string::npos);
  CHECK(said([&](auto& p, auto& c, bool odd) {
          checked.join(p, optim::chain{optim::clip_by_global_norm{odd ? 2.f : 1.f}, optim::adam{}}, c);
        }).find("clip_by_global_norm.") != std::string::npos);
  CHECK(said([&](auto& p, auto& c, bool odd) {
          sync::all_reduce{.codec = compress::error_feedback{compress::top_k{.ratio = odd ? 0.5f : 0.25f}},
                           .check_equal = true}
              .join(p, optim::sgd{}, c);
        }).find("ratio is 0.25 on rank 0 and 0.5 on rank 2") != std::string::npos);
  CHECK(said([&](auto& p, auto& c, bool odd) {
          sync::local_sgd{.check_equal = true}.join(p, optim::momentum{.momentum = odd ? 0.8f : 0.9f}, c);
        }).find("is 0.9 on rank 0 and 0.8 on rank 2") != std::string::npos);
  CHECK(said([&](auto& p, auto& c, bool) { checked.join(p, optim::adamw{}, c); }).empty());
  CHECK(said([&](auto& p, auto& c, bool odd) {
          sync::all_reduce{}.join(p, optim::sgd{.lr = odd ? 1.f : 2.f}, c);
        }).empty());
}

TEST_CASE("a step that one rank abandons and begins anew never adds buckets of one step to those of another") {
  // Four buckets of one size: only what they say of themselves tells them apart.
  tensors const same{{"a", {100}}, {"b", {100}}, {"c", {100}}, {"d", {100}}};
  auto const check = [&](auto const& sync, std::size_t seen_first) {
    std::mutex mutex;
    std::vector<std::string> said;
    CHECK_THROWS_AS(comm::threads(3, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
      arena a(same);
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 1}, c);
      auto const backward = [&](int step, bool throws) {
        std::fill(a.gradients().begin(), a.gradients().end(), static_cast<float>(step));
        for (std::size_t i = 4; i-- > 0;) {
          if (throws && i + seen_first < 4) throw std::runtime_error("a layer failed");
          session.ready(a.parameters().offset(i));
        }
      };
      for (int step = 1; step < 4; ++step) try {
          session.begin();
          try {
            backward(step, c.rank() == 1 && step == 2);
          } catch (std::runtime_error const&) {  // "try again with the next batch"
            session.begin();
            backward(step + 1, false);
          }
          session.step();
          for (float w : a.weights()) REQUIRE(w == -3.f * static_cast<float>(step));  // the first step alone
        } catch (rank_diverged const& e) {
          CHECK(step == 2);
          for (float w : a.weights()) CHECK(w == -3.f);
          std::lock_guard const lock(mutex);
          said.push_back(e.what());
          throw;
        }
    }),
                    rank_diverged);
    REQUIRE(said.size() == 3);
    for (auto const& what : said) CHECK(what.find("rank 1 called") != std::string::npos);
    CHECK(std::any_of(said.begin(), said.end(),
                      [](std::string const& s) { return s.find("(step 2, bucket 0)") != std::string::npos; }));
  };
  for (std::size_t buckets = 1; buckets < 4; ++buckets) {
    check(sync::all_reduce{.bucket_bytes = 400}, buckets);
    check(sync::all_reduce{.codec = compress::without_feedback{compress::top_k{.ratio = 1}},
                           .plan = sync::exchange::all_gather{},
                           .bucket_bytes = 400},
          buckets);
  }
}

TEST_CASE("ranks that have made another number of steps apart do not take a mean together") {
  CHECK_THROWS_WITH_AS(comm::threads(2, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
    arena a(usual);
    auto session = sync::local_sgd{}.join(a.parameters(), optim::sgd{}, c);
    for (int s = 0; s < 3 + c.rank(); ++s) {
      session.begin();
      session.step();
    }
    session.finish();
  }),
                       doctest::Contains("(step 4, bucket 0)"), rank_diverged);
}

TEST_CASE("what is said of an operation holds until something else is said, on every communicator") {
  comm::threads(2, {.deadline = std::chrono::seconds(20)}).run([](auto& c) {
    std::vector<float> x(5, 1.f);
    std::vector<std::byte> all;
    c.about({.step = 3, .bucket = 1});
    c.all_reduce(std::span(x));
    c.all_gather_v(std::as_bytes(std::span<float const>(x)), all);
    c.barrier();
    c.about({});
    c.all_reduce(std::span(x));
    CHECK(x[0] == 4);
  });
  auto const differ = [](auto const& operation) {
    CHECK_THROWS_WITH_AS(comm::threads(2, {.deadline = std::chrono::seconds(20)}).run([&](auto& c) {
      c.about({.step = 3, .bucket = c.rank()});
      operation(c);
    }),
                         doctest::Contains("(step 3, bucket 1)"), rank_diverged);
  };
  std::vector<float> x(2000), y(2000);  // of two ranks, but nothing is written
  differ([&](auto& c) { c.all_reduce(std::span(c.rank() ? x : y).first(4)); });
  differ([&](auto& c) { c.all_reduce(std::span(c.rank() ? x : y)); });
  differ([&](auto& c) { c.reduce_scatter(std::span(c.rank() ? x : y)); });
  differ([&](auto& c) { c.all_gather(std::span(c.rank() ? x : y)); });
  differ([&](auto& c) { c.broadcast(std::span(c.rank() ? x : y), 0); });
  differ([&](auto& c) { c.barrier(); });
  differ([&](auto& c) {
    std::vector<std::byte> all;
    c.all_gather_v(std::as_bytes(std::span<float const>(c.rank() ? x : y)), all);
  });
  comm::self alone;
  alone.about({.step = 1});
  alone.barrier();
}

}  // namespace sync_agreement
