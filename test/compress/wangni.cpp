// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>

#include "sparse.hpp"

namespace compress_wangni {

using namespace dovetail;
using compress::wangni;

static_assert(codec<wangni> && wangni::unbiased && !wangni::contraction && !wangni::wants_error_feedback);

std::uint32_t sent(std::vector<std::byte> const& payload) {
  std::uint32_t k;
  std::memcpy(&k, payload.data(), 4);
  return k;
}
float unit(std::vector<std::byte> const& payload) {
  float m;
  std::memcpy(&m, payload.data() + 4, 4);
  return m;
}

TEST_CASE("M is where the probabilities add up to the budget") {
  for (std::size_t const n : {std::size_t{1}, std::size_t{10}, std::size_t{3000}, std::size_t{50'003}})
    for (float const ratio : {0.001f, 0.01f, 0.1f, 0.7f, 1.0f})
      for (auto const& in : test::inputs(n)) {
        CAPTURE(n);
        CAPTURE(ratio);
        CAPTURE(in.name);
        wangni const codec{.ratio = ratio};
        auto const payload = test::encode_in(codec, in.values, {.step = 1, .seed = 2});
        REQUIRE(payload.size() <= codec.wire_size(n));
        double const m = static_cast<double>(unit(payload));
        double sum = 0, some = 0;
        for (float const v : in.values) {
          double const size = std::fabs(static_cast<double>(v));
          sum += size > m ? 1 : m > 0 ? size / m : 0;
          some += size > 0;
        }
        REQUIRE(sum == doctest::Approx(std::min(some, static_cast<double>(codec.count(n)))).epsilon(1e-4));
        REQUIRE(sent(payload) <= codec.most(n));
        REQUIRE(std::fabs(sent(payload) - sum) <= static_cast<double>((n + 4095) / 4096) + 1e-3 * sum);
      }
}

TEST_CASE("it is unbiased, and its variance is sum x² (1/p − 1), a small part of random-k's") {
  std::size_t const n = 300;
  int const draws = 10'000;
  for (auto const& in : test::inputs(n)) {
    CAPTURE(in.name);
    auto const& x = in.values;
    wangni const codec{.ratio = 0.1f};
    std::vector<double> mean(n), square(n);
    double m = 0, lost = 0;
    for (int d = 0; d < draws; ++d) {
      compress::context const where{.step = d, .seed = 6, .rank = 1, .ranks = 2};
      auto const payload = test::encode_in(codec, x, where);
      m = static_cast<double>(unit(payload));
      auto const y = test::decode_in(codec, payload, n, where);
      for (std::size_t i = 0; i < n; ++i) mean[i] += static_cast<double>(y[i]) / draws;
      lost += test::distance(x, y) / draws;
    }
    double expected = 0;
    for (std::size_t i = 0; i < n; ++i) {
      double const size = std::fabs(static_cast<double>(x[i]));
      double const variance = size < m ? size * m - size * size : 0;
      expected += variance;
      REQUIRE(std::fabs(mean[i] - static_cast<double>(x[i])) <= 5 * std::sqrt(variance / draws) + 1e-6 * size + 1e-12);
    }
    CHECK(lost == doctest::Approx(expected).epsilon(0.05).scale(1e-6));
    CHECK(expected <= 9.01 * test::squared(x));  // random-k's
  }
}

TEST_CASE("what fits in the budget is sent as it is") {
  std::vector<float> x(10'000);
  for (std::size_t i = 0; i < 90; ++i) x[i * 111] = i % 2 ? 1e-3f : -7.5f * static_cast<float>(i);
  wangni const codec{.ratio = 0.01f};
  CHECK(test::decode_in(codec, test::encode_in(codec, x, {}), x.size(), {}) == x);
  auto const y = test::normal(500, 3);
  CHECK(test::decode_in(wangni{.ratio = 1}, test::encode_in(wangni{.ratio = 1}, y, {}), 500, {}) == y);
  std::vector<float> const zeros(777);
  auto const nothing = test::encode_in(codec, zeros, {});
  CHECK(nothing.size() == 8);
  CHECK(test::decode_in(codec, nothing, 777, {}) == zeros);
  std::vector<float> const one{-1e-42f};
  CHECK(test::decode_in(codec, test::encode_in(codec, one, {}), 1, {}) == one);
  CHECK(test::encode_in(codec, {}, {}).size() == 8);
  // A few huge ones and many small ones: the sum of floats of one block must not lose these.
  auto z = test::normal(4096, 5);
  z[17] = 1e30f;
  z[18] = -2e30f;
  auto const payload = test::encode_in(codec, z, {});
  CHECK(unit(payload) < 1e3f);
  CHECK(test::decode_in(codec, payload, 4096, {})[18] == -2e30f);
}

TEST_CASE("ranks and steps draw independently, and one context draws once") {
  auto const x = test::normal(20'000, 3);
  wangni const codec{};
  compress::context const where{.step = 3, .seed = 1, .rank = 0};
  auto const payload = test::encode_in(codec, x, where);
  CHECK(test::encode_in(codec, x, where) == payload);
  auto other = where;
  other.rank = 1;
  CHECK(test::encode_in(codec, x, other) != payload);
  other = where, other.step = 4;
  CHECK(test::encode_in(codec, x, other) != payload);
}

TEST_CASE("what is not finite, or whose M is not, is seen in every element") {
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number})
    for (std::size_t const at : {std::size_t{0}, std::size_t{999}}) {
      auto x = test::normal(1000, 1);
      x[at] = bad;
      for (float const v : test::decode_in(wangni{}, test::encode_in(wangni{}, x, {}), 1000, {}))
        REQUIRE(std::isnan(v));
    }
  std::vector<float> const large(1000, 3e38f);
  CHECK(std::isnan(test::decode_in(wangni{}, test::encode_in(wangni{}, large, {}), 1000, {})[0]));
  CHECK(test::decode_in(wangni{.ratio = 1}, test::encode_in(wangni{.ratio = 1}, large, {}), 1000, {}) == large);
}

TEST_CASE("damaged payloads change nothing") {
  test::damage(wangni{.ratio = 0.05f}, test::normal(700, 3));
  test::damage(wangni{.ratio = 0.5f}, test::inputs(64)[2].values);
  test::damage(wangni{}, test::normal(9001, 3), 100);
}

TEST_CASE("ranks hold the same sums, and bytes are at most those predicted") {
  test::sums_of_ranks(wangni{.ratio = 0.05f});
  CHECK_THROWS_AS(static_cast<void>(wangni{.ratio = 1.5f}.wire_size(5)), argument_error);
}

}  // namespace compress_wangni
