// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What codecs are told, and what becomes of what they keep: steps that are skipped or abandoned, other numbers of
// ranks.
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"
#include "own_codecs.hpp"
#include "pulled.hpp"
#include "summed.hpp"

namespace sync_codec_state {

using namespace dovetail;
namespace exchange = sync::exchange;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Everything that a session has, as bytes.
template <class Session>
std::map<std::string, std::vector<std::byte>> bytes_of(Session& s) {
  std::map<std::string, std::vector<std::byte>> all;
  for (auto const& list : {s.own(""), s.replicated("")})
    for (auto const& t : list) all[t.name] = {t.bytes.begin(), t.bytes.end()};
  return all;
}

/// Makes a step of the gradients of this number.
template <class C, class Session>
optim::step_result step(C& c, arena& a, Session& session, std::uint64_t number, int bad_rank = -1, float bad = 0) {
  session.begin();
  test::fill(a.gradients(), c.rank(), number);
  if (c.rank() == bad_rank) a.gradients()[300] = bad;  // one of several buckets
  for (std::size_t i = a.parameters().size(); i-- > 0;) session.ready(a.parameters().offset(i));
  return session.step();
}

/// Skips where it is told to, as rules do that look at norms.
struct skips_step_2 {
  struct state_type {
    std::int64_t calls = 0;
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  static state_type init(parameter_list const&) { return {}; }
  static optim::step_result step(parameter_list const& p, state_type& s) {
    if (++s.calls == 2) return {.skipped = true, .step = 1};
    for (auto& t : p)
      for (std::size_t i = 0; i < t.size(); ++i) t.weight[i] -= 0.1f * t.gradient[i];
    return {.step = s.calls};
  }
};
static_assert(optimizer<skips_step_2>);

template <class Sync>
void check_skipped(Sync const& sync, int ranks) {
  CAPTURE(ranks);
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena(), b = test::odd_arena();
    auto session = sync.join(a.parameters(), optim::adamw{.lr = 0.01f}, c);
    auto never = sync.join(b.parameters(), optim::adamw{.lr = 0.01f}, c);
    for (std::uint64_t s = 0; s < 3; ++s) {
      step(c, a, session, s);
      step(c, b, never, s);
    }
    for (float const bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
      auto before = bytes_of(session);
      CHECK(step(c, a, session, 50, c.size() - 1, bad).skipped);
      auto after = bytes_of(session);
      for (auto* counted : {&before, &after}) counted->erase("exchange.steps");  // which skipped steps are
      CHECK(before == after);
    }
    // Abandoned in the middle, all gradients or some of them exchanged.
    for (std::size_t first : {std::size_t{0}, a.parameters().offset(3)}) {
      session.begin();
      test::fill(a.gradients(), c.rank(), 60);
      session.ready(first);
    }
    for (std::uint64_t s = 3; s < 6; ++s) {
      CHECK_FALSE(step(c, a, session, s).skipped);
      step(c, b, never, s);
    }
    CHECK(std::memcmp(a.weights().data(), b.weights().data(), a.weights().size_bytes()) == 0);
    auto x = bytes_of(session), y = bytes_of(never);
    for (auto* counted : {&x, &y}) counted->erase("exchange.steps");
    CHECK(x == y);
  });
}

}  // namespace

TEST_CASE("a step that is skipped or abandoned leaves what codecs keep as it was, to the bit, and the training too") {
  for (int const ranks : {1, 2, 3, 4}) {
    check_skipped(sync::all_reduce{.bucket_bytes = 500}, ranks);
    check_skipped(sync::all_reduce{.codec = compress::error_feedback{compress::fp16{}}, .bucket_bytes = 500}, ranks);
    check_skipped(sync::all_reduce{.codec = compress::error_feedback{compress::sign{}}, .bucket_bytes = 500}, ranks);
    check_skipped(
        sync::all_reduce{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}}, .bucket_bytes = 500},
        ranks);
    check_skipped(sync::all_reduce{.codec = test::halves{}, .bucket_bytes = 500}, ranks);
    check_skipped(sync::all_reduce{.codec = compress::ef21{compress::top_k{.ratio = 0.05f}}, .bucket_bytes = 500},
                  ranks);
    check_skipped(sync::all_reduce{.codec = compress::ef21{compress::fp16{}}, .bucket_bytes = 500}, ranks);
    check_skipped(sync::all_reduce{.codec = compress::powersgd{.rank = 1}, .bucket_bytes = 500}, ranks);
  }
  sync::all_reduce const gathered{.codec = compress::error_feedback{compress::sign{.block = 64}},
                                  .plan = exchange::all_gather{},
                                  .bucket_bytes = 500};
  check_skipped(gathered, 4);
  sync::all_reduce const merged{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}},
                                .plan = exchange::merge_tree{},
                                .bucket_bytes = 500};
  for (int const ranks : {2, 4, 5}) check_skipped(merged, ranks);
  sync::all_reduce const both{
      .codec = compress::ef21{compress::sign{}}, .plan = exchange::reduce_scatter_all_gather{}, .bucket_bytes = 500};
  check_skipped(both, 3);
}

TEST_CASE("a step that the optimizer skips loses nothing of what was sent") {
  sync::all_reduce const sync{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}}, .bucket_bytes = 500};
  comm::threads(2).run([&](auto& c) {
    auto a = test::odd_arena();
    auto session = sync.join(a.parameters(), skips_step_2{}, c);
    step(c, a, session, 0);
    auto const before = bytes_of(session);
    CHECK(step(c, a, session, 9).skipped);
    CHECK(bytes_of(session) == before);
    CHECK_FALSE(step(c, a, session, 1).skipped);
    CHECK(bytes_of(session) != before);
  });
}

TEST_CASE("a payload's size may depend on shapes, in every exchange, and each context that is told is the right one") {
  for (int const ranks : {1, 2, 3, 4, 5, 8})
    for (std::size_t const bucket_bytes : {std::size_t{1}, std::size_t{500}, std::size_t{1} << 20}) {
      auto const check = [&](auto const& sync, float tolerance) {
        comm::threads(ranks).run([&](auto& c) {
          auto a = test::odd_arena();
          auto session = sync.join(a.parameters(), optim::sgd{.lr = 1}, c);
          for (std::uint64_t s = 0; s < 3; ++s) {
            std::vector<float> exact(a.gradients().size()), before(a.weights().begin(), a.weights().end());
            for (int r = 0; r < c.size(); ++r) {
              test::fill(a.gradients(), r, s);
              for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += a.gradients()[i];
            }
            auto const moved = c.traffic();
            step(c, a, session, s);
            auto const counted = c.traffic() - moved, predicted = sync.predict(a.parameters(), c.size(), c.rank());
            CHECK(counted.bytes_sent == predicted.bytes_sent);
            CHECK(counted.bytes_received == predicted.bytes_received);
            for (std::size_t i = 0; i < exact.size(); ++i)
              REQUIRE(std::fabs(before[i] - a.weights()[i] - exact[i]) <= tolerance * static_cast<float>(ranks));
          }
        });
      };
      sync::all_reduce const gathered{
          .codec = test::scale_per_tensor{}, .plan = exchange::all_gather{}, .bucket_bytes = bucket_bytes, .seed = 11};
      sync::all_reduce const divided{.codec = test::scale_per_tensor{},
                                     .plan = exchange::reduce_scatter_all_gather{},
                                     .bucket_bytes = bucket_bytes,
                                     .seed = 11};
      check(gathered, 0.5f / 127);
      check(divided, 1.1f / 127);
    }
}

TEST_CASE("noise of a codec that rounds at random is independent over ranks, buckets, steps and elements") {
  auto const check = [](auto const& sync) {
    constexpr int ranks = 8, steps = 3;
    constexpr std::size_t buckets = 4, length = 2000;
    std::vector<std::vector<double>> errors;  // of each bucket and step
    std::mutex mutex;
    comm::threads(ranks).run([&](auto& c) {
      arena a({{"a", {length}}, {"b", {length}}, {"c", {length}}, {"d", {length}}});
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0}, c);
      for (int s = 0; s < steps; ++s) {
        session.begin();
        for (float& g : a.gradients()) g = 0.3f;
        session.ready(0);
        session.step();
        std::lock_guard const lock(mutex);
        for (std::size_t b = 0; c.rank() == 0 && b < buckets; ++b) {
          auto& e = errors.emplace_back();
          for (float const g : a.gradients().subspan(b * length, length))
            e.push_back(static_cast<double>(g) - ranks * 0.3);
        }
      }
    });
    REQUIRE(errors.size() == buckets * steps);
    double const expected = std::sqrt(ranks * 0.3 * 0.7);  // all ranks alike: √8 times as much
    for (std::size_t x = 0; x < errors.size(); ++x) {
      double mean = 0, square = 0, neighbors = 0;
      for (std::size_t i = 0; i < length; ++i) {
        mean += errors[x][i] / length;
        square += errors[x][i] * errors[x][i] / length;
        neighbors += errors[x][i] * errors[x][(i + 1) % length] / length;
      }
      CHECK(std::sqrt(square) == doctest::Approx(expected).epsilon(0.08));
      CHECK(std::fabs(mean) < 4 * expected / std::sqrt(length));
      CHECK(std::fabs(neighbors) < 4.5 * expected * expected / std::sqrt(length));
      for (std::size_t y = 0; y < x; ++y) {
        double both = 0;
        for (std::size_t i = 0; i < length; ++i) both += errors[x][i] * errors[y][i] / length;
        CHECK(std::fabs(both) < 4.5 * expected * expected / std::sqrt(length));
      }
    }
  };
  check(sync::all_reduce{.codec = test::dithered<true>{}, .bucket_bytes = 8000});
  sync::all_reduce const gathered{
      .codec = test::dithered<false>{}, .plan = exchange::all_gather{}, .bucket_bytes = 8000};
  check(gathered);
  sync::all_reduce const divided{
      .codec = test::dithered<false>{}, .plan = exchange::reduce_scatter_all_gather{}, .bucket_bytes = 8000};
  check(divided);
}

namespace {

template <class Sync>
auto trainer_of(Sync const& sync, int ranks) {
  return train::trainer{test::pulled(), optim::sgd{.lr = 0.01f}, sync, comm::threads{ranks}};
}

template <class Sync>
void check_resized(Sync const& sync, std::string const& name, std::size_t buckets) {
  auto four = trainer_of(sync, 4);
  four.fit(test::numbers(), {.batch = 2, .steps = 5});
  auto const before = test::sums_of(four.state(), name, 4);
  REQUIRE(before.size() == buckets);
  auto state = four.state();
  for (int const ranks : {3, 5, 1, 4}) {
    CAPTURE(ranks);
    auto next = trainer_of(sync, ranks);
    next.restore(state);
    next.fit(test::numbers(), {.batch = 2, .steps = 5});  // no step is left: the state is taken over as it is
    auto const now = test::sums_of(next.state(), name, ranks);
    REQUIRE(now.size() == before.size());
    for (auto const& [bucket, sum] : before) {
      double size = 0;
      REQUIRE(now.at(bucket).size() == sum.size());
      for (std::size_t i = 0; i < sum.size(); ++i) {
        size += std::fabs(sum[i]);
        REQUIRE(now.at(bucket)[i] == doctest::Approx(sum[i]).epsilon(1e-5).scale(1e-3));
      }
      CHECK(size > 0);
    }
    state = next.state();
    auto on = trainer_of(sync, ranks);
    on.restore(state);
    CHECK_NOTHROW(on.fit(test::numbers(), {.batch = 2, .steps = 8}));
  }
}

}  // namespace

TEST_CASE(
    "from 4 ranks to 3, 5, 1 and 4 again: sums over ranks are conserved, in every exchange, and from one to another") {
  compress::error_feedback const top{compress::top_k{.ratio = 0.05f}};
  sync::all_reduce const chosen{.codec = top, .bucket_bytes = 100};  // two phases from 3 ranks on, else gathered
  check_resized(chosen, "residual", 2);
  sync::all_reduce const gathered{.codec = top, .plan = exchange::all_gather{}, .bucket_bytes = 100};
  check_resized(gathered, "residual", 2);
  sync::all_reduce const divided{.codec = compress::error_feedback{compress::sign{}},
                                 .plan = exchange::reduce_scatter_all_gather{},
                                 .bucket_bytes = 100};
  check_resized(divided, "residual", 2);
  sync::all_reduce const summed{.codec = compress::error_feedback{compress::fp16{}}, .bucket_bytes = 100};
  check_resized(summed, "residual", 2);
  sync::all_reduce const what_changed{
      .codec = compress::ef21{compress::top_k{.ratio = 0.05f}}, .plan = exchange::all_gather{}, .bucket_bytes = 100};
  check_resized(what_changed, "own", 2);
  sync::all_reduce const low_rank{.codec = compress::powersgd{.rank = 2}, .bucket_bytes = 100};
  check_resized(low_rank, "residual", 1);  // the other bucket has no matrix
}

TEST_CASE("state of one rank's own is not given to another, and damaged sums are named") {
  sync::all_reduce const own{.codec = test::of_one_rank{}};
  auto two = trainer_of(own, 2);
  two.fit(test::numbers(), {.batch = 2, .steps = 3});
  auto three = trainer_of(own, 3);
  three.restore(two.state());
  CHECK_THROWS_WITH_AS(
      three.fit(test::numbers(), {.batch = 2, .steps = 6}),
      "saved state: 'bucket0.rest' is each rank's own, and of no use to another: this run has 3 ranks, "
      "go on with 2",
      checkpoint_error);
  auto as_many = trainer_of(own, 2);
  as_many.restore(two.state());
  CHECK_NOTHROW(as_many.fit(test::numbers(), {.batch = 2, .steps = 6}));

  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}}};
  auto four = trainer_of(sparse, 4);
  four.fit(test::numbers(), {.batch = 2, .steps = 3});
  auto const without = [&](std::string const& gone, std::string const& renamed = "") {
    io::saved_state s;
    bool found = false;
    for (auto const& [name, piece] : four.state().pieces()) {
      found = found || name == gone;
      if (name != gone) s.add(name, piece);
      if (name == gone && !renamed.empty()) s.add(renamed, piece);
    }
    REQUIRE(found);
    auto t = trainer_of(sparse, 3);
    t.restore(s);
    t.fit(test::numbers(), {.batch = 2, .steps = 6});
  };
  CHECK_THROWS_WITH_AS(without("rank2.bucket0.residual@0"), doctest::Contains("of 'bucket0.residual' there are"),
                       checkpoint_error);
  CHECK_THROWS_WITH_AS(without("rank2.bucket0.residual@0", "rank2.bucket0.residual@600"),
                       doctest::Contains("'rank2.bucket0.residual@600' is f32"), checkpoint_error);
  CHECK_THROWS_WITH_AS(without("rank2.bucket0.residual@0", "rank7.bucket0.residual@0"), doctest::Contains("there are"),
                       checkpoint_error);
}

TEST_CASE("a run whose codec is told the step goes on where it was interrupted, with the same random numbers") {
  sync::all_reduce const sync{.codec = test::dithered<true>{0.01f}, .bucket_bytes = 500, .seed = 4};
  auto whole = trainer_of(sync, 3);
  whole.fit(test::numbers(), {.batch = 2, .steps = 9});
  auto first = trainer_of(sync, 3);
  first.fit(test::numbers(), {.batch = 2, .steps = 4});
  auto second = trainer_of(sync, 3);
  second.restore(first.state());
  second.fit(test::numbers(), {.batch = 2, .steps = 9});
  CHECK(second.state() == whole.state());
  auto other = trainer_of(sync::all_reduce{.codec = test::dithered<true>{0.01f}, .bucket_bytes = 500, .seed = 5}, 3);
  other.fit(test::numbers(), {.batch = 2, .steps = 9});
  CHECK_FALSE(other.state() == whole.state());
}

TEST_CASE("EF21 finds the minimum of a sum whose parts pull apart, where the same codec alone drives it away") {
  // Beznosikov et al., "On Biased Compression for Distributed Learning", JMLR 2023, example 1: f_r = <a_r, x>² +
  // |x|²/4.
  auto const distance_after = [](auto const& sync, int steps) {
    double distance = 0;
    comm::threads(3).run([&](auto& c) {
      arena a({{"x", {3}}});
      for (float& w : a.weights()) w = 1;
      std::array<float, 3> of{2, 2, 2};
      of[static_cast<std::size_t>(c.rank())] = -3;
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.02f}, c);
      for (int s = 0; s < steps; ++s) {
        session.begin();
        float product = 0;
        for (std::size_t i = 0; i < 3; ++i) product += of[i] * a.weights()[i];
        for (std::size_t i = 0; i < 3; ++i) a.gradients()[i] = (2 * product * of[i] + a.weights()[i] / 2) / 3;
        session.step();
      }
      if (c.rank() > 0) return;
      for (float const w : a.weights()) distance = std::max(distance, static_cast<double>(std::fabs(w)));
    });
    return distance;
  };
  constexpr exchange::all_gather gathered{};
  compress::top_k const one_of_three{.ratio = 0.3f};
  CHECK(distance_after(sync::all_reduce{compress::without_feedback{one_of_three}, gathered}, 300) > 10);
  CHECK(distance_after(sync::all_reduce{compress::ef21{one_of_three}, gathered}, 3000) < 1e-5);
  CHECK(distance_after(sync::all_reduce{}, 3000) < 1e-5);
}

TEST_CASE("dense for some steps, then signs: each part is exchanged as its codec alone, and predicted") {
  sync::all_reduce const dense{.bucket_bytes = 500};
  sync::all_reduce const signs{.codec = compress::error_feedback{compress::sign{}}, .bucket_bytes = 500};
  sync::all_reduce const phased{.codec = compress::after{3, compress::identity{}, signs.codec}, .bucket_bytes = 500};
  for (int const ranks : {1, 2, 4})
    comm::threads(ranks).run([&](auto& c) {
      auto a = test::odd_arena(), b = test::odd_arena();
      auto session = phased.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
      auto first = dense.join(b.parameters(), optim::sgd{.lr = 0.1f}, c);
      auto then = signs.join(b.parameters(), optim::sgd{.lr = 0.1f}, c);
      for (int s = 0; s < 6; ++s) {
        auto const before = c.traffic();
        CHECK_FALSE(step(c, a, session, static_cast<std::uint64_t>(s)).skipped);
        auto const moved = c.traffic() - before;
        auto const alone = s < 3 ? dense.predict(a.parameters(), c.size(), c.rank())
                                 : signs.predict(a.parameters(), c.size(), c.rank());
        CHECK(moved.bytes_sent == phased.predict(a.parameters(), c.size(), c.rank(), s).bytes_sent);
        CHECK(moved.bytes_sent == alone.bytes_sent);
        CHECK(moved.bytes_received == alone.bytes_received);
        if (s < 3)
          step(c, b, first, static_cast<std::uint64_t>(s));
        else
          step(c, b, then, static_cast<std::uint64_t>(s));
      }
      CHECK(std::memcmp(a.weights().data(), b.weights().data(), a.weights().size_bytes()) == 0);
    });
  check_skipped(sync::all_reduce{.codec = compress::after{3, compress::identity{}, signs.codec}, .bucket_bytes = 500},
                3);
  sync::all_reduce const negative{.codec = compress::after{-1, compress::identity{}, compress::fp16{}}};
  comm::self alone;
  auto a = test::odd_arena();
  CHECK_THROWS_WITH_AS(static_cast<void>(negative.join(a.parameters(), optim::sgd{}, alone)),
                       doctest::Contains("after: steps is -1"), argument_error);
  // An interrupted run goes on in its phase.
  auto whole = trainer_of(phased, 3), begun = trainer_of(phased, 3), resumed = trainer_of(phased, 3);
  whole.fit(test::numbers(), {.batch = 2, .steps = 8});
  begun.fit(test::numbers(), {.batch = 2, .steps = 5});
  resumed.restore(begun.state());
  resumed.fit(test::numbers(), {.batch = 2, .steps = 8});
  CHECK(resumed.state() == whole.state());
}

TEST_CASE("ranks that are left sum their own gradients alone, whatever codecs had of the lost one") {
  auto const check = [](auto const& policy) {
    comm::threads(3).run([&](auto& c) {
      arena a({{"w", {6}}});
      float const own = c.rank() == 0 ? 1 : c.rank() == 1 ? 10 : 100;
      auto const step = [&](auto& session) {
        float const before = a.weights()[0];
        session.begin();
        for (float& g : a.gradients()) g = own;
        session.ready(0);
        session.step();
        return before - a.weights()[0];
      };
      auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
      for (int i = 0; i < 3; ++i) step(session);
      auto rest = c.split(c.rank() == 2, c.rank());  // as shrink gives it
      if (c.rank() == 2) return;
      auto next = policy.join(a.parameters(), optim::sgd{.lr = 1}, rest);
      sync::regroup(session, next, a.parameters(), 3, rest);
      float last = 0;
      for (int i = 0; i < 3; ++i) last = step(next);
      CHECK(last == doctest::Approx(11));
    });
  };
  check(sync::all_reduce{compress::ef21{compress::identity{}}, exchange::all_gather{}});
  check(sync::all_reduce{compress::ef21{compress::identity{}}, exchange::reduce_scatter_all_gather{}});
  check(sync::all_reduce{compress::error_feedback{compress::fp16{}}});
}

}  // namespace sync_codec_state
