// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights, gradients and optimizer state divided among ranks.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <dovetail/dovetail.hpp>

#include "gradients.hpp"

namespace sync_fully_sharded {

using namespace dovetail;

namespace {

using net = nn::basic_network<nn::plain, nn::shape{20}, nn::dense<37>, nn::tanh, nn::dense<30>, nn::tanh, nn::dense<5>>;
using small_model = nn::with_loss<net, nn::softmax_cross_entropy>;
static_assert(model_traits<small_model>::acquires);

data::batch batch_of(std::vector<float>& x, std::vector<std::int32_t>& y, std::int64_t n, int rank,
                     std::uint64_t step) {
  x.resize(static_cast<std::size_t>(20 * n));
  test::fill(x, rank, step);
  y.clear();
  for (std::int64_t i = 0; i < n; ++i)
    y.push_back(static_cast<std::int32_t>((static_cast<std::uint64_t>(i) + step) % 5));
  return {.size = n, .values = x, .tokens = {}, .targets = y};
}

struct trained {
  std::vector<float> weights;
  std::vector<optim::step_result> results;
  comm::traffic moved;
};
/// Trains on `ranks` ranks, of which rank r has r samples more than rank 0, which has `least`.
template <class Sync, class Optimizer>
std::vector<trained> run_of(Sync const& sync, Optimizer const& opt, int ranks, std::int64_t least = 4, int micro = 1) {
  std::vector<trained> all(static_cast<std::size_t>(ranks));
  comm::threads(ranks).run([&](auto& c) {
    auto& mine = all[static_cast<std::size_t>(c.rank())];
    small_model m{net{}, {}};
    auto session = sync.join(m.parameters(), opt, c);
    std::vector<float> x;
    std::vector<std::int32_t> y;
    for (std::uint64_t s = 0; s < 6; ++s) {
      session.begin();
      double loss = 0;
      for (int k = 0; k < micro; ++k) {
        gradient_pass pass{.scale = session.gradient_scale(4, 4 * ranks), .accumulate = k > 0};
        if constexpr (sync::session_traits<decltype(session)>::acquires) {
          pass.acquire = [&](range r) { session.acquire(r); };
          pass.release = [&](range r) { session.release(r); };
        }
        if (k + 1 == micro) pass.ready = [&](std::size_t first) { session.ready(first); };
        auto const b = batch_of(x, y, least + c.rank(), c.rank(), 10 * s + static_cast<std::uint64_t>(k));
        loss += m.gradients(b, pass).loss * static_cast<double>(pass.scale);
      }
      mine.results.push_back(session.step({.loss = loss}));
      if (s == 0) mine.moved = c.traffic();
    }
    if constexpr (requires { session.finish(); }) session.finish();
    for (auto const& p : m.parameters()) mine.weights.insert(mine.weights.end(), p.weight.begin(), p.weight.end());
  });
  return all;
}
/// What a network asks for, in forward order.
template <class Net>
std::vector<range> layers_of() {
  std::vector<range> all;
  for (std::size_t i = 0; i < Net::depth; ++i)
    all.push_back({Net::parameter_offsets[i], Net::parameter_offsets[i + 1]});
  return all;
}
bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("weights are those of sync::all_reduce to the last bit, and on one rank those of the undivided rule") {
  for (int const ranks : {1, 2, 3, 4, 7})
    for (std::size_t const bytes : {std::size_t{1}, std::size_t{600}, std::size_t{5000}, std::size_t{1} << 20})
      for (bool const gives_back : {false, true}) {
        CAPTURE(ranks);
        CAPTURE(bytes);
        sync::fully_sharded const sharded{.bucket_bytes = bytes, .give_back_memory = gives_back};
        auto const expected = run_of(sync::all_reduce{}, optim::adamw{.lr = 0.01f}, ranks);
        for (auto const& t : run_of(sharded, optim::adamw{.lr = 0.01f}, ranks))
          CHECK(same_bits(t.weights, expected[0].weights));
      }
  sync::fully_sharded const checked{.bucket_bytes = 600, .give_back_memory = false};
  // A rank without samples, several micro-batches, and no thread of its own or one.
  for (auto const& t : run_of(checked, optim::adamw{.lr = 0.01f}, 3, 0))
    CHECK(same_bits(t.weights, run_of(sync::all_reduce{}, optim::adamw{.lr = 0.01f}, 3, 0)[0].weights));
  for (auto const by : {comm::progress::thread, comm::progress::caller})
    for (auto const& t : run_of(sync::fully_sharded{.bucket_bytes = 600, .give_back_memory = false, .progress = by},
                                optim::lion{}, 3, 2, 3))
      CHECK(same_bits(t.weights, run_of(sync::all_reduce{}, optim::lion{}, 3, 2, 3)[0].weights));
}

TEST_CASE("rules with norms of tensors, a norm of all, or the loss, see those of the whole") {
  sync::fully_sharded const sharded{.bucket_bytes = 600, .give_back_memory = false};
  auto const close = [&](auto const& opt) {
    auto const expected = run_of(sync::all_reduce{}, opt, 3), got = run_of(sharded, opt, 3);
    for (auto const& t : got) {
      double most = 0;
      for (std::size_t i = 0; i < t.weights.size(); ++i)
        most =
            std::max(most, std::abs(static_cast<double>(t.weights[i]) - static_cast<double>(expected[0].weights[i])));
      CHECK(most < 1e-6);
      CHECK(t.weights == got[0].weights);
      for (std::size_t s = 0; s < t.results.size(); ++s)
        CHECK(t.results[s].gradient_norm == doctest::Approx(expected[0].results[s].gradient_norm).epsilon(1e-6));
    }
  };
  close(optim::lamb{.lr = 0.01f});
  close(optim::chain{optim::clip_by_global_norm{.max_norm = 0.1f}, optim::scale_by_adam{},
                     optim::scale_by_learning_rate{.lr = 0.01f}});
  close(optim::momo{.lr = 0.1f});
}

TEST_CASE("a step's bytes are known before it runs") {
  for (int const ranks : {1, 2, 3, 5}) {
    sync::fully_sharded const sharded{.bucket_bytes = 600};
    auto const got = run_of(sharded, optim::sgd{.lr = 0.1f}, ranks);
    small_model m{net{}, {}};
    for (int r = 0; r < ranks; ++r) {
      auto const& moved = got[static_cast<std::size_t>(r)].moved;
      auto const p = sharded.predict(m.parameters(), ranks, r, layers_of<net>());
      // Beside them the ranks' word on finite gradients, 8 bytes, and what join compares.
      comm::traffic agreed;
      comm::threads(ranks).run([&](auto& c) {
        small_model other{net{}, {}};
        auto const session = sharded.join(other.parameters(), optim::sgd{.lr = 0.1f}, c);
        double bad = 0;
        c.all_reduce(std::span<double>(&bad, 1));
        if (c.rank() == r) agreed = c.traffic();
      });
      CHECK(moved.bytes_sent - agreed.bytes_sent == p.bytes_sent);
      CHECK(moved.bytes_received - agreed.bytes_received == p.bytes_received);
    }
  }
}

#if defined(__linux__)
namespace {
/// Bytes of an array that the system has memory for.
std::size_t resident(std::span<float const> x) {
  auto const page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto const begin = reinterpret_cast<std::uintptr_t>(x.data()) / page * page;
  auto const end = (reinterpret_cast<std::uintptr_t>(x.data()) + x.size_bytes() + page - 1) / page * page;
  std::vector<unsigned char> pages((end - begin) / page);
  REQUIRE(mincore(reinterpret_cast<void*>(begin), end - begin, pages.data()) == 0);
  return page * static_cast<std::size_t>(std::count_if(pages.begin(), pages.end(), [](auto p) { return p & 1; }));
}
}  // namespace

TEST_CASE("memory of what is not there is the system's: of weights and gradients a rank keeps its share") {
  constexpr int ranks = 4;
  comm::threads(ranks).run([](auto& c) {
    arena a({{"a", {1 << 20}}, {"b", {1 << 20}}, {"c", {1 << 20}}});
    std::fill(a.weights().begin(), a.weights().end(), 1.f);
    std::fill(a.gradients().begin(), a.gradients().end(), 1.f);
    auto session = sync::fully_sharded{}.join(a.parameters(), optim::sgd{.lr = 1}, c);
    std::size_t const layer = std::size_t{4} << 20, slack = 3 * 16384;
    session.begin();
    CHECK(resident(a.weights()) <= 3 * layer / ranks + slack);
    for (std::size_t i = 0; i < 3; ++i) {  // forward
      range const r{i << 20, (i + 1) << 20};
      session.acquire(r);
      auto const layer_weights = a.weights().subspan(r.begin, r.size());
      CHECK(std::count(layer_weights.begin(), layer_weights.end(), 1.f) == 1 << 20);
      CHECK(resident(a.weights()) <= layer + 2 * layer / ranks + slack);
      session.release(r);
    }
    for (std::size_t i = 3; i-- > 0;) {
      range const r{i << 20, (i + 1) << 20};
      session.acquire(r);
      session.release(r);
      session.ready(r.begin);
    }
    session.step();
    CHECK(resident(a.gradients()) <= 3 * layer / ranks + slack);
    CHECK(resident(a.weights()) <= 3 * layer / ranks + slack);
    session.finish();
    CHECK(std::count(a.weights().begin(), a.weights().end(), -3.f) == 3 << 20);
  });
}
#endif

TEST_CASE("a gradient that is not finite on one rank skips the step on all; an abandoned step leaves no trace") {
  sync::fully_sharded const sharded{.bucket_bytes = 500, .give_back_memory = false};
  auto const weights_after = [&](bool disturbed) {
    std::vector<float> weights;
    comm::threads(3).run([&](auto& c) {
      auto a = test::odd_arena();
      test::fill(a.weights(), 0, 1000);
      auto session = sharded.join(a.parameters(), optim::adamw{.lr = 0.01f}, c);
      auto const pass = [&](std::uint64_t s, std::size_t down_to) {
        session.begin();
        session.acquire({0, 1254});
        session.release({0, 1254});
        test::fill(a.gradients(), c.rank(), s);
        if (s >= 100 && c.rank() == 2) a.gradients()[3] = std::numeric_limits<float>::infinity();
        session.ready(down_to);
      };
      for (std::uint64_t s = 0; s < 4; ++s) {
        if (disturbed) {
          pass(50 + s, 300);  // and the model threw, on all
          pass(100 + s, 0);
          auto const r = session.step();
          CHECK(r.skipped);
          CHECK(r.step == static_cast<std::int64_t>(s));
        }
        pass(s, 0);
        CHECK_FALSE(session.step().skipped);
      }
      session.finish();
      if (c.rank() == 1) weights.assign(a.weights().begin(), a.weights().end());
    });
    return weights;
  };
  CHECK(weights_after(true) == weights_after(false));
}

TEST_CASE("weights that nobody asked for are an error that names the tensor, and so are tensors that lie apart") {
  comm::threads(2).run([](auto& c) {
    auto a = test::odd_arena();
    auto session = sync::fully_sharded{.bucket_bytes = 1}.join(a.parameters(), optim::sgd{}, c);
    session.begin();
    session.acquire({251, 1254});
    session.ready(251);
    CHECK_THROWS_WITH_AS(session.ready(0), doctest::Contains("gradients of 'c' and did not ask"), argument_error);
    std::vector<float> w(8), g(8), w2(8), g2(8);
    parameter_list apart;
    apart.add("x", w, g);
    apart.add("y", w2, g2);
    CHECK_THROWS_WITH_AS((sync::fully_sharded{}.join(apart, optim::sgd{}, c)), doctest::Contains("an arena's list"),
                         argument_error);
  });
}

TEST_CASE(
    "a bucket stays while the next layer may be of it: each is gathered once a pass, at the turns once for both") {
  for (int const micro : {1, 2, 3})
    for (std::size_t const bytes : {std::size_t{1}, std::size_t{600}, std::size_t{1} << 20}) {
      sync::fully_sharded const sharded{.bucket_bytes = bytes};
      auto const got = run_of(sharded, optim::sgd{.lr = 0.1f}, 2, 4, micro);
      small_model m{net{}, {}};
      auto const p = sharded.predict(m.parameters(), 2, 0, layers_of<net>(), micro);
      CHECK(got[0].moved.operations == p.operations + 2);  // what join compares, and finite gradients
    }
}

TEST_CASE("memory that moves between two steps is followed, and must lie in one block") {
  comm::threads(2).run([](auto& c) {
    std::vector<float> w(40), g(40), w2(40), g2(40), apart(16);
    parameter_list p;
    p.add("a", std::span(w).first(24), std::span(g).first(24), {24});
    p.add("b", std::span(w).subspan(24), std::span(g).subspan(24), {16});
    sync::fully_sharded const sync{.bucket_bytes = 1, .give_back_memory = false};
    auto session = sync.join(p, optim::sgd{.lr = 1}, c);
    auto const step = [&] {
      session.begin();
      session.acquire({0, 40});
      session.release({0, 40});
      for (auto& x : p) std::fill(x.gradient.begin(), x.gradient.end(), 1.f);
      session.step();
      session.finish();
    };
    step();
    CHECK(std::count(w.begin(), w.end(), -2.f) == 40);
    w2 = w;
    std::array const moved{parameter_memory{"a", std::span(w2).first(24), std::span(g2).first(24)},
                           parameter_memory{"b", std::span(w2).subspan(24), std::span(g2).subspan(24)}};
    p.rebind(moved);
    step();
    CHECK(std::count(w.begin(), w.end(), -2.f) == 40);
    CHECK(std::count(w2.begin(), w2.end(), -4.f) == 40);
    p.rebind("b", apart, std::span(g2).subspan(24));
    CHECK_THROWS_WITH_AS(session.begin(), doctest::Contains("an arena's list"), argument_error);
  });
}

TEST_CASE("weights that are never released are those of the step all the same; a step may be begun twice by one rank") {
  comm::threads(2).run([](auto& c) {
    auto a = test::odd_arena();
    auto session = sync::fully_sharded{.give_back_memory = false}.join(a.parameters(), optim::sgd{.lr = 1}, c);
    for (int s = 1; s <= 2; ++s) {
      session.begin();
      if (c.rank() == 1) session.begin();  // its data came late
      session.acquire({0, 1254});
      std::fill(a.gradients().begin(), a.gradients().end(), 1.f);
      session.step();
      session.finish();
      CHECK(std::count(a.weights().begin(), a.weights().end(), static_cast<float>(-2 * s)) == 1254);
    }
  });
}

}  // namespace sync_fully_sharded
