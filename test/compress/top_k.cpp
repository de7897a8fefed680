// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include <doctest/doctest.h>

namespace compress_top_k {

using namespace dovetail;
using compress::top_k;

namespace {

struct entry {
  std::uint32_t index;
  float value;
};
std::vector<entry> entries(std::vector<std::byte> const& payload) {
  std::vector<entry> all(payload.size() / 8);
  if (!all.empty()) std::memcpy(all.data(), payload.data(), payload.size());
  return all;
}
std::uint32_t key(float x) { return std::bit_cast<std::uint32_t>(x) & 0x7fffffffu; }

/// Checks a payload against a full sort: rising indices, the values of the input, exactly the k largest keys.
void check_exact(std::vector<float> const& x, top_k const& codec) {
  auto const chosen = entries(test::encode(codec, x));
  REQUIRE(chosen.size() == codec.count(x.size()));
  std::vector<std::uint32_t> keys, expected;
  std::int64_t last = -1;
  for (auto const& e : chosen) {
    REQUIRE(std::int64_t{e.index} > last);
    REQUIRE(e.index < x.size());
    last = e.index;
    REQUIRE(std::bit_cast<std::uint32_t>(e.value) == std::bit_cast<std::uint32_t>(x[e.index]));
    keys.push_back(key(e.value));
  }
  for (float const v : x) expected.push_back(key(v));
  std::sort(keys.begin(), keys.end(), std::greater<>{});
  std::sort(expected.begin(), expected.end(), std::greater<>{});
  expected.resize(chosen.size());
  REQUIRE(keys == expected);
}

}  // namespace

TEST_CASE("top-k is exact for every small size and many ratios") {
  for (std::size_t n = 0; n <= 300; ++n)
    for (float const ratio : {0.001f, 0.01f, 0.1f, 0.5f, 0.99f, 1.0f}) {
      check_exact(test::normal(n, n), {.ratio = ratio});
      check_exact(test::any_bits(n, n), {.ratio = ratio});
    }
}

TEST_CASE("top-k is exact on large buckets, whether the sample tells the truth or not") {
  std::size_t const n = 300'007;
  std::vector<std::vector<float>> inputs{test::normal(n, 1), test::any_bits(n, 2)};
  std::vector<float> x(n, 0.0f);
  inputs.push_back(x);  // all zero: more candidates than there is room for
  for (std::size_t i = 0; i < n; i += 1000) x[i] = static_cast<float>(i) - 150'000;
  inputs.push_back(x);  // nearly all zero: fewer non-zeros than k
  std::fill(x.begin(), x.end(), -3.0f);
  inputs.push_back(x);  // all equal, all negative
  std::fill(x.end() - 5, x.end(), test::not_a_number);
  inputs.push_back(x);  // NaN where only the histogram looks
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7) - 3;
  inputs.push_back(x);  // few values, many ties
  std::fill(x.begin(), x.end(), 1e-3f);
  std::iota(x.begin() + 100'000, x.begin() + 102'500, 1.0f);
  inputs.push_back(x);  // a dense cluster that a sample may miss
  for (std::size_t i = 0; i < n; ++i) x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i));
  inputs.push_back(x);  // denormals
  for (std::size_t i = 0; i < n; ++i) x[i] = std::ldexp(1.0f, static_cast<int>(i % 250) - 140);
  inputs.push_back(x);  // the whole range
  for (auto const& input : inputs)
    for (float const ratio : {1e-6f, 1e-5f, 0.001f, 0.01f, 0.2f, 0.9f, 1.0f}) check_exact(input, {.ratio = ratio});
}

TEST_CASE("a sample that was misled costs time, not exactness") {
  // Everything where the sample looks is large, or everything there is small.
  std::size_t const n = 1 << 20, stride = n / compress::detail::sampling::most;
  for (bool const large : {false, true}) {
    std::vector<float> x = test::normal(n, 5);
    for (auto& v : x) v = large ? v * 1e-3f : v;
    for (std::uint64_t i = 0; i < compress::detail::sampling::most; ++i) {
      std::uint64_t const hash = (i + 1) * 0x9E3779B97F4A7C15ull;
      x[i * stride + (((hash >> 32) * stride) >> 32)] *= large ? 1e6f : 1e-6f;
    }
    for (float const ratio : {0.001f, 0.05f}) {
      check_exact(x, {.ratio = ratio});
      // and with a residual, bit for bit
      compress::error_feedback const codec{top_k{.ratio = ratio}};
      auto state = codec.init(compress::bucket{x, {}});
      auto const sum = test::encode(codec, x, state), plain = test::encode(top_k{.ratio = ratio}, x);
      CHECK(sum == plain);
      auto both = test::decode(codec, sum, n);
      for (std::size_t i = 0; i < n; ++i) both[i] += state.residual[i];
      CHECK(test::same_bits(both, x));
    }
  }
}

TEST_CASE("ties at the threshold are spread evenly over the positions") {
  for (std::size_t const n : {std::size_t{1000}, std::size_t{100'000}, std::size_t{1'000'000}}) {
    std::vector<float> const x(n, -1.0f);
    for (float const ratio : {0.01f, 0.1f, 0.37f}) {
      top_k const codec{.ratio = ratio};
      auto const chosen = entries(test::encode(codec, x));
      double mean = 0;
      std::uint32_t widest = chosen.front().index;
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        mean += chosen[i].index / static_cast<double>(chosen.size());
        if (i) widest = std::max(widest, chosen[i].index - chosen[i - 1].index);
      }
      CHECK(mean == doctest::Approx(static_cast<double>(n) / 2).epsilon(0.12));
      CHECK(widest <= static_cast<std::uint32_t>(std::ceil(1 / ratio)) + 1);
    }
  }
}

TEST_CASE("NaN is the largest magnitude, then infinity") {
  auto x = test::normal(50'000, 8);
  x[123] = test::not_a_number;
  x[40'000] = -test::infinity;
  x[40'001] = -test::not_a_number;
  top_k const codec{.ratio = 3.0f / 50'000};
  std::set<std::uint32_t> where;
  for (auto const& e : entries(test::encode(codec, x))) where.insert(e.index);
  CHECK(where == std::set<std::uint32_t>{123, 40'000, 40'001});
}

TEST_CASE("top-k refuses indices that repeat, fall or lie outside") {
  std::vector<float> const x(300, 1.0f);
  top_k const codec{.ratio = 0.01f};
  auto const good = test::encode(codec, x);
  REQUIRE(good.size() == 24);
  auto const with_index = [&](std::size_t at, std::uint32_t index) {
    auto bad = good;
    std::memcpy(bad.data() + 8 * at, &index, 4);
    return bad;
  };
  auto const middle = entries(good)[1].index;
  CHECK_NOTHROW(test::decode(codec, good, 300));
  CHECK_THROWS_AS(test::decode(codec, with_index(2, 300), 300), input_error);
  CHECK_THROWS_AS(test::decode(codec, with_index(2, 0xffffffffu), 300), input_error);
  CHECK_THROWS_AS(test::decode(codec, with_index(2, middle), 300), input_error);
  CHECK_THROWS_AS(test::decode(codec, with_index(0, middle + 1), 300), input_error);
  CHECK_THROWS_AS(test::decode(codec, good, 301), input_error);  // another size has another k
}

}  // namespace compress_top_k
