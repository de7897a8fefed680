// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <set>

#include "sparse.hpp"

namespace compress_random_k {

using namespace dovetail;
using compress::block_random_k;
using compress::random_k;
using compress::scaled_block_random_k;
using compress::scaled_random_k;

static_assert(codec<random_k> && codec<scaled_random_k> && codec<block_random_k> && codec<scaled_block_random_k>);
static_assert(random_k::contraction && !random_k::unbiased && random_k::wants_error_feedback && random_k::summable);
static_assert(!scaled_random_k::contraction && scaled_random_k::unbiased && !scaled_random_k::wants_error_feedback);

/// Which elements are sent, in the order in which they are.
std::vector<std::size_t> places(std::size_t n, std::size_t k, std::size_t block, compress::context const& where) {
  std::vector<std::size_t> all;
  compress::detail::random_runs(n, k, block, where, true).each([&](std::size_t at, std::size_t length) {
    for (std::size_t i = 0; i < length; ++i) all.push_back((at + i) % n);
  });
  return all;
}

TEST_CASE("k different elements are drawn, whatever n, k and block are, and all ranks draw the same") {
  for (std::size_t n = 1; n <= 70; ++n)
    for (std::size_t k = 1; k <= n; ++k)
      for (std::size_t const block : {1u, 2u, 3u, 5u, 8u, 100u})
        for (std::int64_t step = 0; step < 3; ++step) {
          compress::context const where{.step = step, .seed = 1, .rank = 0, .ranks = 4, .offset = n};
          auto const all = places(n, k, block, where);
          REQUIRE(all.size() == k);
          std::set<std::size_t> const different(all.begin(), all.end());
          REQUIRE(different.size() == k);
          REQUIRE(*different.rbegin() < n);
          for (int const rank : {3, compress::context::sum_of_ranks}) {
            auto other = where;
            other.rank = rank;
            REQUIRE(places(n, k, block, other) == all);
          }
        }
}

TEST_CASE("of 30 % that are asked, 30 % are sent: drawing with replacement would send 25.9 %") {
  std::size_t const n = 100'000;
  auto const all = places(n, random_k{.ratio = 0.3f}.count(n), 1, {.step = 2, .seed = 8});
  std::set<std::size_t> const different(all.begin(), all.end());
  CHECK(different.size() == 30'000);
}

TEST_CASE("steps, seeds and places of a bucket draw other elements") {
  compress::context const where{.step = 1, .seed = 1, .offset = 0};
  auto const all = places(10'000, 100, 1, where);
  auto other = where;
  other.step = 2;
  CHECK(places(10'000, 100, 1, other) != all);
  other = where, other.seed = 2;
  CHECK(places(10'000, 100, 1, other) != all);
  other = where, other.offset = 10'000;
  CHECK(places(10'000, 100, 1, other) != all);
}

TEST_CASE("every element has the probability k/n, the first and the last too") {
  for (auto const& [n, k, block] : std::vector<std::array<std::size_t, 3>>{
           {50, 7, 1}, {50, 20, 1}, {53, 20, 6}, {31, 30, 4}, {97, 10, 10}, {5, 1, 1}, {6000, 1, 1}}) {
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(block);
    int const draws = 10'000;
    std::vector<int> count(n);
    for (int d = 0; d < draws; ++d)
      for (auto const at : places(n, k, block, {.step = d, .seed = 3})) ++count[at];
    double const p = static_cast<double>(k) / static_cast<double>(n), mean = p * draws;
    double const sigma = std::sqrt(mean * (1 - p));
    for (std::size_t i = 0; i < n; ++i) CHECK(std::fabs(count[i] - mean) < 5 * sigma + 4);
    // All together: a chi-square of about n − 1 (or fewer) degrees of freedom.
    double chi = 0;
    for (int const c : count) chi += (c - mean) * (c - mean) / (mean * (1 - p));
    CHECK(chi < static_cast<double>(n) + 6 * std::sqrt(2 * static_cast<double>(n)));
  }
}

TEST_CASE("the scaled forms are unbiased with a relative variance of n/k − 1; the others lose 1 − k/n") {
  std::size_t const n = 200;
  for (auto const& in : test::inputs(n)) {
    CAPTURE(in.name);
    auto const& x = in.values;
    auto const check = [&](auto const& codec, double error) {
      int const draws = 10'000;
      std::vector<double> mean(n);
      double lost = 0;
      for (int d = 0; d < draws; ++d) {
        compress::context const where{.step = d, .seed = 6};
        auto const y = test::decode_in(codec, test::encode_in(codec, x, where), n, where);
        for (std::size_t i = 0; i < n; ++i) mean[i] += static_cast<double>(y[i]) / draws;
        lost += test::distance(x, y) / draws;
      }
      CHECK(lost ==
            doctest::Approx(error * test::squared(x)).epsilon(in.values[7] != 0 && in.values[8] != 0 ? 0.05 : 0.1));
      if (codec.unbiased)
        for (std::size_t i = 0; i < n; ++i)
          CHECK(std::fabs(mean[i] - static_cast<double>(x[i])) <=
                5 * std::fabs(static_cast<double>(x[i])) * std::sqrt(error / draws) + 1e-12);
    };
    check(scaled_random_k{.ratio = 0.1f}, 9);
    check(scaled_block_random_k{.ratio = 0.1f, .block = 5}, 9);
    check(random_k{.ratio = 0.1f}, 0.9);
    check(block_random_k{.ratio = 0.1f, .block = 7}, 0.9);
  }
}

TEST_CASE("with error feedback decoded + residual is input + old residual, bit for bit, and the residual is bounded") {
  for (std::size_t const n : {std::size_t{1}, std::size_t{9}, std::size_t{1001}}) {
    compress::error_feedback const codec{random_k{.ratio = 0.125f}};
    auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
    double largest = 0;
    for (int step = 0; step < 200; ++step) {
      auto const g = test::normal(n, static_cast<std::uint64_t>(step));
      compress::context const where{.step = step, .seed = 2};
      std::vector<float> expected(n), both(n);
      for (std::size_t i = 0; i < n; ++i) expected[i] = state.residual[i] + g[i];
      auto const sent = test::decode_in(codec, test::encode_in(codec, {g, {}}, state, where), n, where);
      for (std::size_t i = 0; i < n; ++i) both[i] = sent[i] + state.residual[i];
      REQUIRE(test::same_bits(both, expected));
      largest = std::max(largest, std::sqrt(test::squared(state.residual.span()) / static_cast<double>(n)));
    }
    CHECK(largest < 12);
  }
}

TEST_CASE("what is not finite and not sent is seen all the same") {
  std::size_t const n = 1000;
  for (std::size_t const at : {std::size_t{0}, std::size_t{499}, n - 1})
    for (float const bad : {test::infinity, -test::infinity, test::not_a_number}) {
      auto x = test::normal(n, 1);
      x[at] = bad;
      auto const seen = [&](auto const& codec) {
        compress::context const where{.step = 1};
        bool any = false;
        for (float const v : test::decode_in(codec, test::encode_in(codec, x, where), n, where))
          any |= !std::isfinite(v);
        return any;
      };
      CHECK(seen(random_k{.ratio = 0.001f}));
      CHECK(seen(scaled_random_k{.ratio = 0.1f}));
      CHECK(seen(block_random_k{.ratio = 0.1f, .block = 32}));
      compress::error_feedback const codec{random_k{.ratio = 0.01f}};
      auto state = codec.init(compress::bucket{x, {}});
      auto const payload = test::encode_in(codec, {x, {}}, state, {});
      CHECK(std::isnan(test::decode_in(codec.codec, payload, n, {})[places(n, 10, 1, {})[0]]));
      for (float const v : state.residual) REQUIRE(v == 0);
    }
}

TEST_CASE("sizes: 4 bytes an element that is sent, none of an empty bucket, all of them at a ratio of 1") {
  CHECK(random_k{.ratio = 0.01f}.wire_size(0) == 0);
  CHECK(random_k{.ratio = 0.01f}.wire_size(1) == 4);
  CHECK(random_k{.ratio = 0.1f}.wire_size(10) == 4);
  CHECK(block_random_k{.ratio = 0.5f}.wire_size(10) == 20);
  for (std::size_t const n : {std::size_t{0}, std::size_t{1}, std::size_t{777}}) {
    auto const x = test::any_bits(n, n);
    auto const y = test::normal(n, n);
    auto const same = [&](auto const& codec, std::vector<float> const& values) {
      return test::same_bits(test::decode_in(codec, test::encode_in(codec, values, {}), n, {}), values);
    };
    CHECK(same(random_k{.ratio = 1}, y));
    CHECK(same(scaled_random_k{.ratio = 1}, y));
    CHECK(same(block_random_k{.ratio = 1, .block = 10}, y));
    CHECK(test::encode_in(random_k{.ratio = 1}, x, {}).size() == 4 * n);
  }
  CHECK_THROWS_AS(static_cast<void>(random_k{.ratio = 0}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(random_k{.ratio = test::not_a_number}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(block_random_k{.ratio = 0.5f, .block = 0}.wire_size(5)), argument_error);
  CHECK_THROWS_WITH_AS(static_cast<void>(random_k{}.wire_size(std::size_t{1} << 32)),
                       doctest::Contains("indices have 32 bits"), argument_error);
  CHECK_THROWS_WITH_AS(test::decode_in(random_k{.ratio = 0.1f}, std::vector<std::byte>(39), 100, {}),
                       doctest::Contains("random-k: a payload of 39 bytes for 100 elements, where 40 are written"),
                       input_error);
}

TEST_CASE("damaged payloads change nothing outside") {
  auto const x = test::normal(300, 3);
  test::damage(random_k{.ratio = 0.1f}, x);
  test::damage(block_random_k{.ratio = 0.1f, .block = 16}, x);
}

TEST_CASE("ranks hold the same sums of the same elements, and the bytes are those predicted") {
  auto const plain = test::sums_of_ranks(random_k{.ratio = 0.05f});
  for (auto const& [ranks, sum] : plain) {
    CAPTURE(ranks);
    auto const sent = std::count_if(sum.begin(), sum.end(), [](float v) { return v != 0; });
    CHECK(sent == 63);  // of all ranks together: they leave out the same ones
  }
  test::sums_of_ranks(scaled_random_k{.ratio = 0.05f});
  test::sums_of_ranks(block_random_k{.ratio = 0.05f, .block = 16});
  test::sums_of_ranks(compress::error_feedback{random_k{.ratio = 0.05f}});
  test::sums_of_ranks(compress::error_feedback{block_random_k{.ratio = 0.05f, .block = 16}});
}

TEST_CASE("a state of error feedback goes on where it was saved") {
  test::restart(compress::error_feedback{random_k{.ratio = 0.05f}}, 999);
}

}  // namespace compress_random_k
