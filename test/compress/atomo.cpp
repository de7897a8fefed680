// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <array>
#include <numeric>

#include <dovetail/compress/atomo.hpp>
#include <dovetail/compress/gram_schmidt.hpp>

#include "sparse.hpp"

namespace compress_atomo {

using namespace dovetail;
using compress::atomo;
using compress::bucket;
using compress::bucket_tensor;
using compress::context;
using compress::detail::spectrum;

static_assert(codec<atomo> && atomo::unbiased && !atomo::summable && !atomo::contraction);
static_assert(compress::codec_traits<atomo>::takes_back && compress::codec_traits<atomo>::decodes_with_state);

std::vector<double> probabilities(std::vector<double> const& values, int budget) {
  std::vector<double> p(values.size(), -1.0);
  atomo::find_probabilities(values, budget, p);
  return p;
}
double variance(std::vector<double> const& values, std::vector<double> const& p) {
  double all = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    if (values[i] > 0) all += values[i] * values[i] * (1 / p[i] - 1);
  return all;
}

/// `count` orthonormal columns of n floats.
std::vector<float> orthonormal(std::size_t n, std::size_t count, std::uint64_t seed) {
  auto q = test::normal(n * count, seed);
  compress::orthonormalize(q.data(), n, count, [](std::size_t, std::size_t) { return 1.0f; });
  return q;
}
/// U diag(values) Vᵀ {m, n}.
std::vector<float> with_values(std::size_t m, std::size_t n, std::vector<double> const& values, std::uint64_t seed) {
  std::size_t const k = values.size();
  auto const u = orthonormal(m, k, seed), v = orthonormal(n, k, seed + 1);
  std::vector<float> x(m * n);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < k; ++c)
        sum += values[c] * static_cast<double>(u[c * m + i]) * static_cast<double>(v[c * n + j]);
      x[i * n + j] = static_cast<float>(sum);
    }
  return x;
}

/// One matrix as a bucket.
struct matrix {
  std::vector<float> values;
  bucket_tensor tensor;
  matrix(std::vector<float> x, std::size_t m, std::size_t n)
      : values(std::move(x)), tensor{0, {static_cast<std::int64_t>(m), static_cast<std::int64_t>(n)}} {}
  compress::bucket bucket() const { return {values, {&tensor, 1}}; }
};
std::vector<float> one_step(atomo const& codec, bucket const& b, context const& where = {}) {
  auto state = codec.init(b);
  auto const payload = test::encode_in(codec, b, state, where);
  std::vector<float> out(b.size());
  codec.decode_add(payload, out, 1, state, where);
  return out;
}
std::uint32_t triplets(std::vector<std::byte> const& payload) {
  std::uint32_t k;
  std::memcpy(&k, payload.data(), 4);
  return k;
}

TEST_CASE("the probabilities are those of the paper's algorithm 1") {
  // 2 · 10 > 16: the first is sent for certain, and 1 is left for the others, which add up to 6.
  auto const p = probabilities({10, 3, 2, 1}, 2);
  CHECK(p[0] == 1);
  CHECK(p[1] == doctest::Approx(3.0 / 6));
  CHECK(p[2] == doctest::Approx(2.0 / 6));
  CHECK(p[3] == doctest::Approx(1.0 / 6));
  // 3 · 10 > 21, 2 · 7 > 11, 1 · 2 <= 4
  auto const q = probabilities({10, 7, 2, 1, 1}, 3);
  CHECK(q[1] == 1);
  CHECK(q[2] == doctest::Approx(0.5));
  CHECK(q[4] == doctest::Approx(0.25));
  // Balanced: s σ_i / Σσ of all.
  auto const b = probabilities({4, 3, 3, 2}, 2);
  for (std::size_t i = 0; i < 4; ++i) CHECK(b[i] == doctest::Approx(2 * std::array{4.0, 3.0, 3.0, 2.0}[i] / 12));
  CHECK(probabilities({5, 5, 5, 5}, 1) == std::vector<double>{0.25, 0.25, 0.25, 0.25});
  CHECK(probabilities({5, 2, 0, 0}, 3) == std::vector<double>{1, 1, 0, 0});
  CHECK(probabilities({0, 0}, 1) == std::vector<double>{0, 0});
  CHECK(probabilities({1e-300, 1e-301}, 2) == std::vector<double>{1, 1});
  CHECK(probabilities({7}, 1) == std::vector<double>{1});
}

TEST_CASE("they add up to the budget, and no others have less variance") {
  random_stream const random{3};
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    std::size_t const n = 2 + random.word(trial * 64) % 12;
    int const budget = 1 + static_cast<int>(random.word(trial * 64 + 1) % n);
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i)
      values[i] = std::exp(6 * static_cast<double>(random.uniform(trial * 64 + 2 + i)));
    std::sort(values.begin(), values.end(), std::greater<>{});
    auto const p = probabilities(values, budget);
    CAPTURE(trial);
    CHECK(std::accumulate(p.begin(), p.end(), 0.0) == doctest::Approx(budget));
    double const least = variance(values, p);
    double square = 0;
    for (double const v : values) square += v * v;
    CHECK(least <= (static_cast<double>(n) / budget - 1) * square * (1 + 1e-12));
    for (double const v : p) REQUIRE((v > 0 && v <= 1));
    // A little moved from any one to any other is worse.
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) {
        auto moved = p;
        double const step = 1e-3 * std::min(moved[j], 1 - moved[i]);
        moved[i] += step;
        moved[j] -= step;
        REQUIRE(variance(values, moved) >= least * (1 - 1e-12));
      }
  }
}

TEST_CASE("singular values are found, and singular vectors are orthonormal and span the matrix, of every shape") {
  for (auto const& [m, n] : std::vector<std::array<std::size_t, 2>>{
           {1, 1}, {1, 9}, {2, 2}, {3, 3}, {5, 17}, {8, 8}, {16, 40}, {33, 65}, {64, 300}, {130, 131}})
    for (double const scale : {1.0, 1e-30, 1e30}) {
      std::vector<double> values(m);
      for (std::size_t i = 0; i < m; ++i) values[i] = scale / static_cast<double>(1 + i);
      if (m > 4) values[2] = values[1], values[m - 1] = values[m - 2] = 0;  // alike, and a rank below m
      auto const x = with_values(m, n, values, m);
      spectrum s;
      s.decompose(x.data(), m, n);
      CAPTURE(m);
      CAPTURE(n);
      std::sort(values.begin(), values.end(), std::greater<>{});
      for (std::size_t i = 0; i < m; ++i) REQUIRE(std::fabs(s.values()[i] - values[i]) <= 2e-6 * scale);
      std::vector<std::vector<double>> u(m, std::vector<double>(m));
      for (std::size_t i = 0; i < m; ++i) s.vector(i, u[i]);
      for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < m; ++j) {
          double const dot = std::inner_product(u[i].begin(), u[i].end(), u[j].begin(), 0.0);
          REQUIRE(std::fabs(dot - (i == j ? 1 : 0)) <= 1e-13 * static_cast<double>(m));
          // What u_i and u_j have of x: its square, and nothing in common.
          double common = 0;
          for (std::size_t c = 0; c < n; ++c) {
            double a = 0, b = 0;
            for (std::size_t r = 0; r < m; ++r) {
              a += u[i][r] * (static_cast<double>(x[r * n + c]) / scale);
              b += u[j][r] * (static_cast<double>(x[r * n + c]) / scale);
            }
            common += a * b;
          }
          double const value = s.values()[i] / scale;
          REQUIRE(std::fabs(common - (i == j ? value * value : 0)) <= 1e-13 * static_cast<double>(m));
        }
    }
}

TEST_CASE("values that are far apart, nearly alike or all the same are found as well") {
  for (auto const& values : std::vector<std::vector<double>>{
           {1, 1, 1, 1, 1, 1}, {1, 1e-3, 1e-5, 1e-6}, {3, 3 * (1 + 1e-9), 3, 1, 1 + 1e-8}, {1, 0, 0, 0, 0, 0, 0}}) {
    auto const x = with_values(12, 20, values, 5);
    spectrum s;
    s.decompose(x.data(), 12, 20);
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end(), std::greater<>{});
    for (std::size_t i = 0; i < 12; ++i)
      CHECK(s.values()[i] == doctest::Approx(i < sorted.size() ? sorted[i] : 0).epsilon(1e-6).scale(0.3));
  }
  std::vector<float> const zeros(60);
  spectrum s;
  s.decompose(zeros.data(), 6, 10);
  for (double const v : s.values()) CHECK(v == 0);
}

TEST_CASE("the same bits on every vector level") {
  auto const levels = {cpu_level::baseline, cpu_level::avx2, cpu_level::avx512};
  for (auto const& [m, n] : std::vector<std::array<std::size_t, 2>>{{5, 7}, {19, 23}, {64, 129}}) {
    auto const x = test::normal(m * n, m), y = test::normal(m, 3);
    auto const outcome = [&, m = m, n = n](cpu_level level) {
      auto const kernel = compress::spectral_kernels::at(level);
      std::vector<double> g(m * m, 0.5), p(m), q(y.begin(), y.end());
      kernel.gram(x.data(), m, n, g.data());
      kernel.multiply(g.data(), m, m, q.data(), p.data());
      kernel.subtract_products(g.data(), m, m, p.data(), q.data());
      g.insert(g.end(), p.begin(), p.end());
      return g;
    };
    auto const first = outcome(cpu_level::baseline);
    for (auto const level : levels)
      if (level <= supported_cpu_level())
        CHECK(std::memcmp(outcome(level).data(), first.data(), 8 * first.size()) == 0);
    // And what they say they are.
    std::vector<double> g(m * m), p(m);
    compress::spectral_kernels::best().gram(x.data(), m, n, g.data());
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (std::size_t c = 0; c < n; ++c)
          sum += static_cast<double>(x[i * n + c]) * static_cast<double>(x[j * n + c]);
        REQUIRE(g[i * m + j] == doctest::Approx(sum).epsilon(1e-12));
      }
  }
}

TEST_CASE("it is unbiased, and its variance is the paper's, for tall and wide matrices") {
  int const draws = 4000;
  for (auto const& [m, n] : std::vector<std::array<std::size_t, 2>>{{9, 14}, {14, 9}, {10, 10}})
    for (int const rank : {1, 2, 4}) {
      std::vector<double> values{8, 5, 4, 2, 1, 1, 0.5, 0.25, 0.1};
      matrix const x(with_values(m, n, values, 7), m, n);
      atomo const codec{.rank = rank, .min_rate = 0.1f};
      std::vector<double> mean(m * n), square(m * n);
      double lost = 0;
      auto state = codec.init(x.bucket());
      for (int d = 0; d < draws; ++d) {
        context const where{.step = d, .seed = 6, .rank = 1, .ranks = 2};
        auto const payload = test::encode_in(codec, x.bucket(), state, where);
        REQUIRE(triplets(payload) == static_cast<std::uint32_t>(rank));
        REQUIRE(payload.size() == codec.wire_size(x.bucket()));
        std::vector<float> y(m * n);
        codec.decode_add(payload, y, 1, state, where);
        for (std::size_t i = 0; i < y.size(); ++i) {
          mean[i] += static_cast<double>(y[i]) / draws;
          square[i] += static_cast<double>(y[i]) * static_cast<double>(y[i]) / draws;
        }
        lost += test::distance(x.values, y) / draws;
      }
      CAPTURE(m);
      CAPTURE(rank);
      for (std::size_t i = 0; i < mean.size(); ++i) {
        double const deviation = std::sqrt(std::max(0.0, square[i] - mean[i] * mean[i]) / draws);
        REQUIRE(std::fabs(mean[i] - static_cast<double>(x.values[i])) <= 5 * deviation + 1e-5);
      }
      double const expected = variance(values, probabilities(values, rank));
      CHECK(lost == doctest::Approx(expected).epsilon(0.05));
      CHECK(expected <= (9.0 / rank - 1) * test::squared(x.values));
    }
}

TEST_CASE("a matrix of no larger rank than the budget is exact, and all else is always") {
  // Behind a matrix a vector, a small matrix, a convolution's weights, and elements of no tensor.
  std::vector<bucket_tensor> const tensors{{0, {40, 50}}, {2000, {40}}, {2040, {3, 4}}, {2052, {32, 8, 3, 3}}};
  std::size_t const n = 2052 + 2304 + 5;
  auto x = test::normal(n, 1);
  auto const low = with_values(40, 50, {3, 2, 1e-2}, 2), filter = with_values(32, 72, {1e-3}, 4);
  std::copy(low.begin(), low.end(), x.begin());
  std::copy(filter.begin(), filter.end(), x.begin() + 2052);
  bucket const b{x, tensors};
  atomo const codec{.rank = 3};
  CHECK(compress::wire_size(codec, b) == 4 + 4 * 3 * 90 + 4 + 4 * 3 * 104 + 4 * (40 + 12 + 5));
  CHECK(codec.wire_size(100) == 400);
  auto state = codec.init(b);
  auto const payload = test::encode_in(codec, b, state, {});
  CHECK(payload.size() == 4 + 4 * 3 * 90 + 4 + 4 * 104 + 4 * (40 + 12 + 5));  // one of three in the filter
  auto const y = one_step(codec, b);
  for (std::size_t i = 0; i < n; ++i) {
    if ((i >= 2000 && i < 2052) || i >= n - 5)
      REQUIRE(y[i] == x[i]);
    else
      REQUIRE(std::fabs(y[i] - x[i]) <= 2e-6f);
  }
  CHECK(one_step(codec, bucket{x, {}}) == x);
  // Nothing of nothing.
  matrix const zeros(std::vector<float>(2000), 40, 50);
  auto zero_state = codec.init(zeros.bucket());
  CHECK(test::encode_in(codec, zeros.bucket(), zero_state, {}).size() == 4);
  CHECK(one_step(codec, zeros.bucket()) == zeros.values);
}

TEST_CASE("at the ends of what floats are, too") {
  for (float const scale : {1e-38f, 1e-44f, 1e30f, 1e37f}) {
    auto x = with_values(40, 50, {3, 1}, 2);
    for (float& v : x) v *= scale;
    matrix const m(x, 40, 50);
    auto const y = one_step(atomo{.rank = 2}, m.bucket());
    float largest = 0;
    for (float const v : x) largest = std::max(largest, std::fabs(v));
    CAPTURE(scale);
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::fabs(y[i] - x[i]) <= 1e-5f * largest + 6e-45f);
  }
}

TEST_CASE("ranks and steps draw independently, and one context draws once") {
  matrix const x(test::normal(2000, 3), 40, 50);
  atomo const codec{.rank = 2};
  context const where{.step = 3, .seed = 1, .rank = 0};
  auto state = codec.init(x.bucket());
  auto const payload = test::encode_in(codec, x.bucket(), state, where);
  CHECK(test::encode_in(codec, x.bucket(), state, where) == payload);
  auto other = where;
  other.rank = 1;
  CHECK(test::encode_in(codec, x.bucket(), state, other) != payload);
  other = where, other.step = 4;
  CHECK(test::encode_in(codec, x.bucket(), state, other) != payload);
}

TEST_CASE("what is not finite is seen in all of its matrix, and nowhere else") {
  std::vector<bucket_tensor> const tensors{{0, {20, 30}}, {600, {20, 30}}, {1200, {7}}};
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number})
    for (std::size_t const at : {std::size_t{0}, std::size_t{599}, std::size_t{1203}}) {
      auto x = test::normal(1207, 1);
      x[at] = bad;
      auto const y = one_step(atomo{}, bucket{x, tensors});
      for (std::size_t i = 0; i < 1207; ++i) REQUIRE(std::isfinite(y[i]) == (at < 600 ? i >= 600 : i != at));
    }
}

TEST_CASE("damaged payloads change nothing") {
  std::vector<bucket_tensor> const tensors{{0, {20, 30}}, {620, {30, 20}}};
  auto const x = test::normal(1300, 1);
  bucket const b{x, tensors};
  atomo const codec{.rank = 2};
  auto state = codec.init(b);
  auto const good = test::encode_in(codec, b, state, {});
  REQUIRE(good.size() == 2 * (4 + 2 * 4 * 50) + 4 * 100);
  auto const refused = [&](std::vector<std::byte> bytes) {
    bytes.shrink_to_fit();
    std::vector<float> out(1300, 0.5f);
    try {
      codec.decode_add(bytes, out, 1, state, {});
    } catch (input_error const&) {
      for (float const v : out) REQUIRE(v == 0.5f);
      return true;
    }
    return false;
  };
  CHECK_FALSE(refused(good));
  for (std::size_t size = 0; size < good.size(); ++size)
    REQUIRE(refused({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)}));
  auto bytes = good;
  bytes.push_back(std::byte{0});
  CHECK(refused(bytes));
  for (std::size_t const at : {std::size_t{0}, std::size_t{404}})
    for (std::uint32_t const count : {0u, 1u, 3u, 0x40000000u, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
      bytes = good;
      std::memcpy(bytes.data() + at, &count, 4);
      CHECK(refused(bytes));
    }
}

TEST_CASE("a state of another bucket is refused, and so are fields out of range") {
  matrix const x(test::normal(2000, 3), 40, 50), y(test::normal(2000, 3), 50, 40);
  atomo const codec{};
  auto state = codec.init(x.bucket());
  std::vector<std::byte> out(codec.wire_size(x.bucket()));
  std::vector<float> values(1999);
  CHECK_THROWS_AS(codec.encode(y.bucket(), state, out, {}), argument_error);
  CHECK_THROWS_AS(codec.encode({values, {}}, state, out, {}), argument_error);
  CHECK_THROWS_AS(codec.decode_add(out, values, 1, state, {}), argument_error);
  CHECK_THROWS_AS(atomo{.rank = 0}.init(x.bucket()), argument_error);
  CHECK_THROWS_AS(atomo{.min_rate = 0}.init(x.bucket()), argument_error);
}

TEST_CASE("ranks hold the same sums, and bytes are at most those predicted") {
  test::sums_of_ranks(atomo{.rank = 2, .min_rate = 1});
}

}  // namespace compress_atomo
