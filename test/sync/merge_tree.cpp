// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// sync::exchange::merge_tree: global top-k.
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"

namespace sync_merge_tree {

using namespace dovetail;
namespace exchange = sync::exchange;

static_assert(exchange::merge_is_legal<compress::top_k> && exchange::merge_is_legal<compress::packed_top_k>);
static_assert(exchange::merge_is_legal<compress::error_feedback<compress::sampled_top_k>>);
static_assert(compress::codec_traits<compress::error_feedback<compress::top_k>>::returns_entries);
static_assert(!compress::codec_traits<compress::without_feedback<compress::top_k>>::returns_entries);
static_assert(!exchange::merge_is_legal<compress::sign> && !exchange::merge_is_legal<compress::identity>);
static_assert(!exchange::merge_is_legal<compress::error_feedback<compress::sign>>);
static_assert(!exchange::merge_is_legal<compress::chunked_top_k> && !exchange::merge_is_legal<compress::powersgd>);

namespace {

/// What a rank holds behind a step.
struct outcome {
  std::vector<float> values, residual;
  comm::traffic moved, predicted;
};
template <class Exchange>
std::vector<float> residual_of(Exchange& e) {
  for (auto const& t : e.tensors(""))
    if (t.name == "residual") {
      std::vector<float> residual(t.bytes.size() / sizeof(float));
      std::memcpy(residual.data(), t.bytes.data(), t.bytes.size());
      return residual;
    }
  return {};
}

/// Steps of `ranks` ranks with a bucket of n elements: by step and rank. `fill(values, rank, step)` makes gradients.
template <class Codec, class Fill>
std::vector<std::vector<outcome>> steps_of(Codec const& codec, int ranks, std::int64_t n, int steps, Fill const& fill) {
  std::vector<std::vector<outcome>> all(static_cast<std::size_t>(steps),
                                        std::vector<outcome>(static_cast<std::size_t>(ranks)));
  comm::threads(ranks).run([&](auto& c) {
    arena a({{"w", {n}}});
    sync::bucket_exchange<Codec> bucket(codec, exchange::plan::merge_tree, a.parameters(), {0, a.gradients().size()},
                                        a.gradients(), c.size(), c.rank());
    for (int s = 0; s < steps; ++s) {
      fill(a.gradients(), c.rank(), s);
      auto const before = c.traffic();
      bucket.run(c, a.gradients(), {.step = s, .seed = 3});
      bucket.commit();
      all[static_cast<std::size_t>(s)][static_cast<std::size_t>(c.rank())] = {
          {a.gradients().begin(), a.gradients().end()}, residual_of(bucket), c.traffic() - before, bucket.predicted(s)};
    }
  });
  return all;
}
/// Integers, whose sums are exact in any order, of very different sizes.
void fill_integers(std::span<float> values, int rank, int step) {
  random_stream const random{7, 0, static_cast<std::uint64_t>(step), static_cast<std::uint32_t>(rank)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto const r = random.word(i);
    float const size = static_cast<float>(1 << (r % 11));
    values[i] = (r >> 16) % 3 == 0 ? 0.0f : (r >> 20) % 2 ? size : -size;
  }
}
int nonzero(std::span<float const> x) {
  return static_cast<int>(std::count_if(x.begin(), x.end(), [](float v) { return v != 0; }));
}

}  // namespace

TEST_CASE("what came through and what the residuals keep are the gradients and what they kept, and all ranks agree") {
  auto const check = [](auto const& codec) {
    for (int ranks = 1; ranks <= 8; ++ranks)
      for (std::int64_t const n : {1, 7, 300}) {
        CAPTURE(compress::name_of(codec));
        CAPTURE(ranks);
        CAPTURE(n);
        auto const all = steps_of(codec, ranks, n, 8, fill_integers);
        std::vector<float> kept(static_cast<std::size_t>(n));
        for (std::size_t s = 0; s < all.size(); ++s) {
          auto const& first = all[s][0].values;
          std::vector<float> wanted = kept, found = first, g(kept.size());
          std::fill(kept.begin(), kept.end(), 0.0f);
          for (int r = 0; r < ranks; ++r) {
            auto const& mine = all[s][static_cast<std::size_t>(r)];
            REQUIRE(std::memcmp(mine.values.data(), first.data(), 4 * first.size()) == 0);
            fill_integers(g, r, static_cast<int>(s));
            for (std::size_t i = 0; i < g.size(); ++i) {
              wanted[i] += g[i];
              found[i] += mine.residual[i];
              kept[i] += mine.residual[i];
            }
            if constexpr (compress::codec_traits<std::remove_cvref_t<decltype(codec)>>::fixed_size) {
              CHECK(mine.moved.bytes_sent == mine.predicted.bytes_sent);
              CHECK(mine.moved.bytes_received == mine.predicted.bytes_received);
              if (ranks > 1) CHECK(mine.moved.operations == mine.predicted.operations);
            }
            CHECK(mine.moved.bytes_sent <= mine.predicted.bytes_sent);
            CHECK(mine.moved.bytes_received <= mine.predicted.bytes_received);
          }
          REQUIRE(found == wanted);
          REQUIRE(nonzero(first) <= static_cast<int>(codec.count(static_cast<std::size_t>(n))));
        }
      }
  };
  check(compress::error_feedback{compress::top_k{.ratio = 0.05f}});
  check(compress::error_feedback{compress::top_k{.ratio = 0.7f}});
  check(compress::error_feedback{compress::packed_top_k{.ratio = 0.05f}});
  check(compress::error_feedback{compress::sampled_top_k{.ratio = 0.1f}});
}

TEST_CASE("what a merge dropped goes back to its rank, even where others brought the element in again") {
  // Ranks 0 and 1 keep element 0 of {5, 4}; ranks 2 and 3 add up to 7 of element 1, which comes through without rank
  // 1's 4.
  auto const all = steps_of(compress::error_feedback{compress::top_k{.ratio = 0.125f}}, 4, 8, 1,
                            [](std::span<float> g, int rank, int) {
                              std::fill(g.begin(), g.end(), 0.0f);
                              g[rank == 0 ? 0 : 1] = rank == 0 ? 5.0f : rank == 1 ? 4.0f : rank == 2 ? 6.0f : 1.0f;
                              g[7] = 0.5f;
                            });
  auto const with = [](float zero, float one) { return std::vector<float>{zero, one, 0, 0, 0, 0, 0, 0.5f}; };
  for (auto const& rank : all[0]) CHECK(rank.values == std::vector<float>{0, 7, 0, 0, 0, 0, 0, 0});
  CHECK(all[0][0].residual == with(5, 0));
  CHECK(all[0][1].residual == with(0, 4));
  CHECK(all[0][2].residual == with(0, 0));
  CHECK(all[0][3].residual == with(0, 0));
}

TEST_CASE("the result is that of the paper's tree, merge by merge") {
  std::size_t const n = 200, k = 10;
  using entries = std::map<std::size_t, float>;
  auto const largest = [](entries const& from, std::size_t most) {
    std::vector<std::pair<std::size_t, float>> sorted(from.begin(), from.end());
    std::sort(sorted.begin(), sorted.end(),
              [](auto const& a, auto const& b) { return std::fabs(a.second) > std::fabs(b.second); });
    sorted.resize(std::min(most, sorted.size()));
    return entries(sorted.begin(), sorted.end());
  };
  for (int ranks = 1; ranks <= 8; ++ranks) {
    auto const all =
        steps_of(compress::without_feedback{compress::top_k{.ratio = 0.05f}}, ranks, static_cast<std::int64_t>(n), 1,
                 [](std::span<float> g, int rank, int) { test::fill(g, rank, 0); });
    std::vector<entries> held;
    for (int r = 0; r < ranks; ++r) {
      std::vector<float> g(n);
      test::fill(g, r, 0);
      entries whole;
      for (std::size_t i = 0; i < n; ++i) whole[i] = g[i];
      held.push_back(largest(whole, k));
    }
    // In round j rank r takes in rank r + 2^j.
    for (std::size_t step = 1; step < held.size(); step *= 2)
      for (std::size_t r = 0; r + step < held.size(); r += 2 * step) {
        auto both = held[r];
        for (auto const& [i, v] : held[r + step]) both[i] += v;
        held[r] = largest(both, k);
      }
    std::vector<float> expected(n);
    for (auto const& [i, v] : held[0]) expected[i] = v;
    CAPTURE(ranks);
    CHECK(all[0][0].values == expected);
  }
}

TEST_CASE("no rank moves more than log2(P) payloads each way, the others one") {
  compress::error_feedback const codec{compress::top_k{.ratio = 0.01f}};
  std::vector<float> const values(10'000);
  compress::bucket const b{values, {}};
  auto const cost = [&](int rank) { return exchange::cost(exchange::plan::merge_tree, codec, b, 8, rank); };
  CHECK(cost(0) == comm::traffic{3 * 813, 3 * 800, 7});
  CHECK(cost(4) == comm::traffic{800 + 2 * 813, 2 * 800 + 813, 7});
  CHECK(cost(7) == comm::traffic{800, 813, 3});
  CHECK(exchange::cost(exchange::plan::all_gather, codec, b, 8, 0).bytes_sent == 7 * 800);
  CHECK(exchange::choose<exchange::automatic>(codec, b, 8) != exchange::plan::merge_tree);
  CHECK(exchange::choose<exchange::merge_tree>(codec, b, 8) == exchange::plan::merge_tree);
}

TEST_CASE("what is not finite comes through to all, and is not returned to any residual") {
  float const infinity = HUGE_VALF, nan = std::nanf("");
  for (float const bad : {infinity, -infinity, nan})
    for (int const where : {0, 2, 4}) {
      auto const all = steps_of(compress::error_feedback{compress::top_k{.ratio = 0.02f}}, 5, 100, 2,
                                [&](std::span<float> g, int rank, int step) {
                                  test::fill(g, rank, 0);
                                  if (step == 1 && rank == where)
                                    for (std::size_t i = 0; i < g.size(); i += 7) g[i] = bad;
                                });
      for (auto const& rank : all[1]) {
        CHECK_FALSE(all_finite(rank.values));
        CHECK(all_finite(rank.residual));
      }
    }
}

TEST_CASE("over many steps every element comes through") {
  auto const all = steps_of(compress::error_feedback{compress::top_k{.ratio = 0.05f}}, 5, 400, 600,
                            [](std::span<float> g, int rank, int) { test::fill(g, rank, 0); });
  std::vector<double> delivered(400), once(400);
  for (auto const& step : all)
    for (std::size_t i = 0; i < 400; ++i) delivered[i] += static_cast<double>(step[0].values[i]);
  std::vector<float> g(400);
  double worst = 0, largest = 0;
  for (int r = 0; r < 5; ++r) {
    test::fill(g, r, 0);
    for (std::size_t i = 0; i < 400; ++i) once[i] += static_cast<double>(g[i]);
  }
  for (std::size_t i = 0; i < 400; ++i) {
    worst = std::max(worst, std::fabs(delivered[i] - 600 * once[i]));
    largest = std::max(largest, std::fabs(600 * once[i]));
  }
  CHECK(worst < 0.25 * largest);
  CHECK(worst > 0);
}

TEST_CASE("a rank that is in another bucket is noticed before anything is merged") {
  comm::threads world(3);
  CHECK_THROWS_AS(world.run([&](auto& c) {
    arena a({{"w", {50}}});
    compress::error_feedback const codec{compress::top_k{.ratio = 0.1f}};
    sync::bucket_exchange<compress::error_feedback<compress::top_k>> bucket(
        codec, exchange::plan::merge_tree, a.parameters(), {0, 50}, a.gradients(), c.size(), c.rank());
    c.about({4, c.rank() == 1 ? 1 : 0});
    bucket.run(c, a.gradients());
  }),
                  rank_diverged);
}

}  // namespace sync_merge_tree
