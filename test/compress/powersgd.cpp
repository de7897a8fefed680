// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "session.hpp"
#include "tools.hpp"

#include <dovetail/comm.hpp>
#include <dovetail/compress/powersgd.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

namespace compress_powersgd {

using namespace dovetail;
using compress::bucket;
using compress::bucket_tensor;
using compress::context;
using compress::powersgd;
using test::difference;
using test::norm;
namespace kernels = compress::powersgd_kernels;

static_assert(codec<powersgd> && compress::rounds_of<powersgd> == 2);
static_assert(compress::codec_traits<powersgd>::takes_back);

/// Ranks of one bucket that add up payloads as an all-reduce does, in rank order.
struct ranks {
  powersgd codec;
  std::vector<bucket_tensor> tensors;
  std::size_t n;
  std::vector<powersgd::state> states{};
  std::int64_t step = 0;

  ranks(powersgd const& c, std::vector<bucket_tensor> t, std::size_t size, int count)
      : codec(c), tensors(std::move(t)), n(size) {
    std::vector<float> const zeros(n);
    for (int i = 0; i < count; ++i) states.push_back(codec.init(bucket{zeros, tensors}));
  }
  /// The decoded sum, the same on all ranks.
  std::vector<float> exchange(std::vector<std::vector<float>> const& gradients, bool made = true) {
    std::vector<float> sums;
    for (int round = 0; round < 2; ++round) {
      std::size_t const bytes = codec.wire_size(bucket{gradients[0], tensors}, round);
      sums.assign(bytes / 4, 0.0f);
      for (std::size_t i = 0; i < states.size(); ++i) {
        std::vector<float> sent(bytes / 4);
        REQUIRE(codec.encode(bucket{gradients[i], tensors}, states[i], std::as_writable_bytes(std::span(sent)),
                             at(round, static_cast<int>(i))) == bytes);
        for (std::size_t j = 0; j < sent.size(); ++j) sums[j] += sent[j];
      }
      if (round == 0)
        for (std::size_t i = 0; i < states.size(); ++i)
          codec.absorb(std::as_bytes(std::span(sums)), states[i], at(0, static_cast<int>(i)));
    }
    std::vector<float> out;
    for (auto& s : states) {
      std::vector<float> own(n);
      codec.decode_add(std::as_bytes(std::span(sums)), own, 1, s, at(1, context::sum_of_ranks));
      if (!out.empty()) REQUIRE(test::same_bits(own, out));
      out = own;
    }
    for (auto& s : states) made ? codec.commit(s) : codec.rollback(s);
    ++step;
    return out;
  }
  context at(int round, int rank) const {
    return {.step = step, .seed = 5, .rank = rank, .ranks = static_cast<int>(states.size()), .round = round};
  }
};

/// a + b
std::vector<float> sum(std::span<float const> a, std::span<float const> b) {
  std::vector<float> s(a.begin(), a.end());
  for (std::size_t i = 0; i < s.size(); ++i) s[i] += b[i];
  return s;
}
/// u vᵀ of normal vectors, for each of `rank` seeds.
std::vector<float> low_rank(std::size_t m, std::size_t n, std::size_t rank, std::uint64_t seed) {
  std::vector<float> x(m * n);
  for (std::size_t k = 0; k < rank; ++k) {
    auto const u = test::normal(m, seed + 2 * k), v = test::normal(n, seed + 2 * k + 1);
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; ++j) x[i * n + j] += u[i] * v[j];
  }
  return x;
}

/// A matrix, a vector, a small matrix that is sent as it is, a convolution's weights, and elements of no tensor.
std::vector<bucket_tensor> mixed() { return {{0, {40, 50}}, {2000, {40}}, {2040, {3, 4}}, {2052, {32, 8, 3, 3}}}; }
constexpr std::size_t mixed_size = 2052 + 2304 + 5;

TEST_CASE("sizes are those of the factors, of each round, and what does not pay is sent as it is") {
  auto const tensors = mixed();
  std::vector<float> const x(mixed_size);
  bucket const b{x, tensors};
  powersgd const codec{.rank = 4};
  std::size_t const dense = 40 + 12 + 5;
  CHECK(compress::wire_size(codec, b, 0) == 4 * (4 * 40 + 4 * 32 + dense));
  CHECK(compress::wire_size(codec, b, 1) == 4 * (4 * 50 + 4 * 72));
  CHECK(codec.wire_size(100) == 400);
  CHECK(powersgd{}.wire_size(bucket{x, {}}, 0) == 4 * mixed_size);
  CHECK(powersgd{}.wire_size(bucket{x, {}}, 1) == 0);
  // (m + n) r min_rate < m n: 90 · 4 · 5.5 = 1980 < 2000, 104 · 4 · 5.5 = 2288 < 2304; at 5.6 neither
  CHECK(powersgd{.rank = 4, .min_rate = 5.5f}.wire_size(b, 1) == 4 * (4 * 50 + 4 * 72));
  CHECK(powersgd{.rank = 4, .min_rate = 5.6f}.wire_size(b, 1) == 0);
  // Rank is at most what the matrix has.
  std::vector<bucket_tensor> const flat{{0, {3, 600}}};
  CHECK(powersgd{.rank = 4, .min_rate = 0.9f}.wire_size(bucket{std::span(x).first(1800), flat}, 1) == 4 * 3 * 600);
}

TEST_CASE("a matrix of the codec's rank is exact as soon as Q is found, vectors are exact at once") {
  ranks r({.rank = 2}, mixed(), mixed_size, 3);
  std::vector<std::vector<float>> g(3);
  std::vector<float> exact(mixed_size);
  auto const shared = low_rank(40, 50, 2, 1), filter = low_rank(32, 72, 1, 9);
  for (std::size_t i = 0; i < 3; ++i) {
    g[i] = test::normal(mixed_size, 100 + i);
    for (std::size_t j = 0; j < 2000; ++j) g[i][j] = shared[j] * static_cast<float>(i + 1);
    for (std::size_t j = 0; j < 2304; ++j) g[i][2052 + j] = filter[j] * static_cast<float>(i + 1);
    for (std::size_t j = 0; j < mixed_size; ++j) exact[j] += g[i][j];
  }
  // One product with a random Q already spans the columns of a matrix of this rank.
  auto const out = r.exchange(g);
  CHECK(norm(difference(out, exact)) < 1e-4 * norm(exact));  // of columns that lie close together
  for (std::size_t j = 2000; j < 2052; ++j) CHECK(out[j] == exact[j]);
  for (std::size_t j = mixed_size - 5; j < mixed_size; ++j) CHECK(out[j] == exact[j]);
  for (auto const& s : r.states) {
    CHECK(norm(s.residual.span()) < 1e-4 * norm(exact));
    for (std::size_t j = 2000; j < 2052; ++j) CHECK(s.residual[j] == 0);
  }
}

TEST_CASE("what was decoded and the residuals add up to the gradients, for any input") {
  std::size_t const m = 64, n = 48;
  std::vector<std::vector<float>> inputs{test::normal(m * n, 1), std::vector<float>(m * n, 2.0f)};
  auto& sparse = inputs.emplace_back(m * n);
  for (std::size_t i = 0; i < m * n; i += 100) sparse[i] = test::normal(1, i)[0];
  auto& heavy = inputs.emplace_back(test::normal(m * n, 3));
  for (float& v : heavy) v = v * v * v * v * v;
  auto& alternating = inputs.emplace_back(m * n);
  for (std::size_t i = 0; i < m * n; ++i) alternating[i] = i % 2 ? 1.0f : -1.0f;
  auto& tiny = inputs.emplace_back(m * n, std::numeric_limits<float>::denorm_min());
  tiny[5] = 0;
  inputs.emplace_back(m * n);  // zero
  for (auto const& x : inputs) {
    std::vector<bucket_tensor> const tensors{{0, {64, 48}}};
    ranks r({.rank = 3}, tensors, m * n, 2);
    for (int step = 0; step < 5; ++step) {
      std::vector<std::vector<float>> g{x, x};
      for (float& v : g[1]) v *= -0.25f;
      std::vector<float> owed = sum(sum(g[0], g[1]), sum(r.states[0].residual.span(), r.states[1].residual.span()));
      auto const out = r.exchange(g);
      auto const rest = sum(r.states[0].residual.span(), r.states[1].residual.span());
      CHECK(norm(difference(sum(out, rest), owed)) <= 2e-6 * norm(owed) + 1e-42);
      CHECK(norm(rest) <= norm(owed) * (1 + 1e-6));  // a projection loses no more than there is
      for (float const v : out) REQUIRE(std::isfinite(v));
    }
  }
}

TEST_CASE("the residual stays bounded over 2000 steps of noise that ranks do not share") {
  // From what the sum of all Q leaves, in place of the rank's own, it would grow with the square root of the steps:
  // the same recursion with P ΣQᵀ / ranks is followed beside it.
  std::size_t const m = 24, n = 20;
  std::vector<bucket_tensor> const tensors{{0, {24, 20}}};
  ranks r({.rank = 2}, tensors, m * n, 2);
  std::vector<float> aggregated(m * n);
  double own_100 = 0, own_2000 = 0, aggregated_100 = 0, aggregated_2000 = 0;
  for (std::uint64_t step = 1; step <= 2000; ++step) {
    std::vector<std::vector<float>> const g{test::normal(m * n, 2 * step), test::normal(m * n, 2 * step + 1)};
    auto const out = r.exchange(g);
    for (std::size_t i = 0; i < m * n; ++i) aggregated[i] += g[0][i] - out[i] / 2;
    if (step > 50 && step <= 100)
      own_100 += norm(r.states[0].residual.span()) / 50, aggregated_100 += norm(aggregated) / 50;
    if (step > 1950) own_2000 += norm(r.states[0].residual.span()) / 50, aggregated_2000 += norm(aggregated) / 50;
  }
  MESSAGE("own ", own_100, " to ", own_2000, ", aggregated ", aggregated_100, " to ", aggregated_2000);
  CHECK(own_2000 < 1.3 * own_100);
  CHECK(aggregated_2000 > 2.5 * aggregated_100);
}

TEST_CASE("Q is the same on all ranks, from a shared seed and not from each one's own") {
  std::size_t const m = 60, n = 50;
  std::vector<bucket_tensor> const tensors{{0, {60, 50}}};
  ranks r({.rank = 1}, tensors, m * n, 4);
  std::vector<std::vector<float>> g(4, low_rank(m, n, 1, 3));
  std::vector<float> exact(m * n);
  for (std::size_t i = 0; i < 4; ++i) {
    auto const noise = test::normal(m * n, 40 + i);
    for (std::size_t j = 0; j < m * n; ++j) exact[j] += g[i][j] += 0.02f * noise[j];
  }
  CHECK(norm(difference(r.exchange(g), exact)) < 0.1 * norm(exact));  // nearly of rank 1: at once
  for (auto const& s : r.states) CHECK(s.q == r.states[0].q);
}

TEST_CASE("a warm start finds the largest directions by and by, seeded noise in each step does not") {
  std::size_t const m = 80, n = 60;
  std::vector<bucket_tensor> const tensors{{0, {80, 60}}};
  auto x = low_rank(m, n, 2, 7);
  auto const noise = test::normal(m * n, 8);
  for (std::size_t i = 0; i < m * n; ++i) x[i] += 0.5f * noise[i];
  auto const lost = [&](powersgd const& codec) {
    ranks r(codec, tensors, m * n, 1);
    double last = 0;
    for (int step = 0; step < 12; ++step) {
      for (auto& s : r.states) std::fill(s.residual.begin(), s.residual.end(), 0.0f);
      last = norm(difference(r.exchange({x}), x));
    }
    return last / norm(x);
  };
  double const warm = lost({.rank = 2}), cold = lost({.rank = 2, .warm_start = false});
  MESSAGE("lost after 12 steps: warm ", warm, ", cold ", cold);
  CHECK(warm < 0.97 * cold);
}

TEST_CASE("a direction that Q does not touch is found with refresh, and never without") {
  // Two directions that share no element, in which every product is exact: Q begins on the first and stays there.
  std::size_t const m = 16, n = 16;
  std::vector<bucket_tensor> const tensors{{0, {16, 16}}};
  std::vector<float> x(m * n);
  x[0] = 1;             // row 0, column 0
  x[5 * n + 7] = 0.5f;  // row 5, column 7
  auto const after = [&](powersgd const& codec) {
    ranks r(codec, tensors, m * n, 1);
    r.step = 1;
    r.states[0].q[0] = 1;
    for (int step = 0; step < 100; ++step) r.exchange({x});
    return norm(r.states[0].residual.span());
  };
  CHECK(after({.rank = 1}) == 50);
  CHECK(after({.rank = 1, .refresh = 10}) < 8);
}

TEST_CASE("columns of rank less than there is room for become noise, and no column is lost for ever") {
  std::size_t const m = 40, n = 30;
  std::vector<bucket_tensor> const tensors{{0, {40, 30}}};
  ranks r({.rank = 4, .min_rate = 1}, tensors, m * n, 2);
  auto const check_orthonormal = [](std::span<float const> p, std::size_t length) {
    for (std::size_t a = 0; a < p.size() / length; ++a)
      for (std::size_t b = 0; b <= a; ++b) {
        double dot = 0;
        for (std::size_t i = 0; i < length; ++i)
          dot += static_cast<double>(p[a * length + i]) * static_cast<double>(p[b * length + i]);
        CHECK(std::fabs(dot - (a == b)) < 1e-6);
      }
  };
  // Zeros, then a matrix of rank 1: three columns of P are dead.
  for (auto const& x : {std::vector<float>(m * n), low_rank(m, n, 1, 4)}) {
    auto const out = r.exchange({x, x});
    check_orthonormal(r.states[0].p.span(), m);
    CHECK(norm(difference(out, sum(x, x))) <= 1e-5 * norm(x));
  }
  // And then one of rank 4, which is not found if a column has died.
  auto const x = low_rank(m, n, 4, 20);
  std::vector<float> out;
  for (int step = 0; step < 3; ++step) {
    for (auto& s : r.states) std::fill(s.residual.begin(), s.residual.end(), 0.0f);
    out = r.exchange({x, x});
  }
  CHECK(norm(difference(out, sum(x, x))) < 1e-4 * norm(x));
}

TEST_CASE("orthonormal columns of any input, however little independent they are") {
  auto const random = [](std::size_t k, std::size_t i) { return test::normal(1, 1000 * k + i)[0]; };
  for (std::size_t const n : {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{64}, std::size_t{1001}})
    for (std::size_t const count : {std::size_t{1}, std::min<std::size_t>(n, 3), std::min<std::size_t>(n, 16)})
      for (int kind = 0; kind < 6; ++kind) {
        auto x = test::normal(n * count, n + count);
        if (kind == 1) std::fill(x.begin(), x.end(), 0.0f);
        if (kind == 2) std::fill(x.begin(), x.end(), 1e-44f);
        if (kind == 3) std::fill(x.begin(), x.end(), 3e38f);
        if (kind == 4)
          for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i % n] + 1e-6f * x[i];  // nearly the same column
        if (kind == 5) x[n * count / 2] = test::not_a_number;
        compress::orthonormalize(x.data(), n, count, random);
        for (std::size_t a = 0; a < count; ++a)
          for (std::size_t b = 0; b <= a; ++b)
            REQUIRE(std::fabs(compress::detail::dot(&x[a * n], &x[b * n], n) - (a == b)) < 1e-6);
        if (kind == 1) {  // also where noise is of no help
          std::fill(x.begin(), x.end(), 0.0f);
          compress::orthonormalize(x.data(), n, count, [](std::size_t, std::size_t) { return 0.0f; });
          REQUIRE(std::fabs(compress::detail::dot(x.data(), x.data(), n) - 1) < 1e-6);
        }
      }
}

TEST_CASE("non-finite gradients are seen by all ranks, and residual and Q stay as they were on all of them") {
  auto const tensors = mixed();
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number})
    for (std::size_t const where :
         {std::size_t{0}, std::size_t{1999}, std::size_t{2010}, std::size_t{2045}, std::size_t{3000}, mixed_size - 1})
      for (bool const taken_back : {false, true}) {
        ranks r({.rank = 2}, tensors, mixed_size, 2);
        r.exchange({test::normal(mixed_size, 1), test::normal(mixed_size, 2)});
        auto const before = r.states;
        std::vector<std::vector<float>> g{test::normal(mixed_size, 3), test::normal(mixed_size, 4)};
        g[1][where] = bad;
        auto const out = r.exchange(g, !taken_back);
        CHECK_FALSE(std::isfinite(out[where]));
        CHECK(r.states == before);
      }
  // Infinities of both signs, in one element and in one row.
  ranks r({.rank = 2}, tensors, mixed_size, 2);
  std::vector<std::vector<float>> g{test::normal(mixed_size, 3), test::normal(mixed_size, 4)};
  g[0][7] = test::infinity;
  g[1][7] = -test::infinity;
  g[0][8] = -test::infinity;
  CHECK_FALSE(std::isfinite(r.exchange(g)[7]));
}

TEST_CASE("an overflow is sent, and the residual that it comes from restarts at 0") {
  std::vector<bucket_tensor> const tensors{{0, {16, 16}}};
  ranks r({.rank = 1}, tensors, 256, 1);
  std::vector<float> g(256);
  for (std::size_t i = 0; i < 16; ++i) g[17 * i] = 2.5e38f;
  CHECK(std::isfinite(norm(r.exchange({g}))));
  CHECK(norm(r.states[0].residual.span()) > 1e38);
  bool overflowed = false;
  for (int step = 0; step < 3; ++step) {
    auto const out = r.exchange({g}, false);
    bool const finite = std::all_of(out.begin(), out.end(), [](float v) { return std::isfinite(v); });
    overflowed = overflowed || !finite;
    if (step > 0) CHECK(finite);  // not again in the next step, though each was taken back
  }
  CHECK(overflowed);
}

TEST_CASE("a step that is taken back leaves the state's bits, and the next one goes on from them") {
  auto const tensors = mixed();
  ranks a({.rank = 2}, tensors, mixed_size, 3), b = a;
  for (std::uint64_t step = 0; step < 6; ++step) {
    std::vector<std::vector<float>> g, other;
    for (std::uint64_t i = 0; i < 3; ++i) {
      g.push_back(test::normal(mixed_size, 10 * step + i));
      other.push_back(test::normal(mixed_size, 1000 + 10 * step + i));
    }
    auto const before = a.states;
    if (step > 0) {
      a.exchange(other, false);
      --a.step;
      CHECK(a.states == before);
      // abandoned between the rounds
      std::vector<float> sent(a.codec.wire_size(bucket{g[0], tensors}, 0) / 4);
      for (auto& s : a.states) {
        a.codec.encode(bucket{other[0], tensors}, s, std::as_writable_bytes(std::span(sent)), a.at(0, 0));
        a.codec.rollback(s);
      }
      CHECK(a.states == before);
    }
    CHECK(test::same_bits(a.exchange(g), b.exchange(g)));
    CHECK(a.states == b.states);
  }
}

TEST_CASE("a state that is saved and loaded in the middle goes on as if nothing had been") {
  auto const tensors = mixed();
  ranks a({.rank = 2}, tensors, mixed_size, 2), b({.rank = 2}, tensors, mixed_size, 2);
  auto const gradients = [](std::uint64_t step) {
    return std::vector<std::vector<float>>{test::normal(mixed_size, 2 * step), test::normal(mixed_size, 2 * step + 1)};
  };
  for (std::uint64_t step = 0; step < 4; ++step) a.exchange(gradients(step));
  for (std::size_t i = 0; i < 2; ++i) {
    auto const from = a.states[i].tensors("x."), to = b.states[i].tensors("x.");
    REQUIRE(from.size() == 2);
    CHECK(from[0].name == "x.residual");
    CHECK(from[0].kind == state_kind::summed);
    CHECK(from[1].kind == state_kind::replicated);
    for (std::size_t t = 0; t < 2; ++t) std::copy(from[t].bytes.begin(), from[t].bytes.end(), to[t].bytes.begin());
  }
  b.step = a.step;
  for (std::uint64_t step = 4; step < 8; ++step)
    CHECK(test::same_bits(a.exchange(gradients(step)), b.exchange(gradients(step))));
  CHECK(a.states == b.states);
}

TEST_CASE("damaged payloads: another size is refused before anything changes, any bits stay in bounds") {
  auto const tensors = mixed();
  powersgd const codec{.rank = 2};
  auto const x = test::normal(mixed_size, 1);
  bucket const b{x, tensors};
  auto s = codec.init(b);
  std::vector<std::byte> first(codec.wire_size(b, 0)), second(codec.wire_size(b, 1));
  std::vector<float> out(mixed_size);
  CHECK_THROWS_AS(codec.absorb(first, s, {}), argument_error);
  CHECK_THROWS_AS(codec.decode_add(second, out, 1, s, {.round = 1}), argument_error);
  CHECK_THROWS_AS(codec.encode(b, s, second, {.round = 1}), argument_error);
  CHECK_THROWS_AS(codec.encode(b, s, first, {.round = 2}), argument_error);
  CHECK_THROWS_AS(codec.encode(b, s, std::span(first).first(first.size() - 1), {}), argument_error);
  codec.encode(b, s, first, {});
  auto longer = first;
  longer.push_back(std::byte{});
  CHECK_THROWS_AS(codec.absorb(longer, s, {}), input_error);
  CHECK_THROWS_AS(codec.absorb(std::span(first).first(first.size() - 4), s, {}), input_error);
  codec.absorb(first, s, {});
  codec.encode(b, s, second, {.round = 1});
  auto const before = s;
  CHECK_THROWS_AS(codec.decode_add(std::span(second).first(second.size() - 1), out, 1, s, {.round = 1}), input_error);
  std::vector<float> shorter(mixed_size - 1);
  CHECK_THROWS_AS(codec.decode_add(second, shorter, 1, s, {.round = 1}), argument_error);
  CHECK(out == std::vector<float>(mixed_size));
  CHECK(s == before);
  random_stream const random{3};
  std::uint64_t draw = 0;
  for (int repeat = 0; repeat < 30; ++repeat) {
    codec.encode(b, s, first, {.step = repeat});
    for (auto& v : first)
      if (repeat % 3 != 1) v = static_cast<std::byte>(random.word(draw++));
    codec.absorb(first, s, {.step = repeat});
    codec.encode(b, s, second, {.step = repeat, .round = 1});
    for (auto& v : second)
      if (repeat % 3 != 2) v = static_cast<std::byte>(random.word(draw++));
    codec.decode_add(second, out, 1, s, {.step = repeat, .round = 1});
    repeat % 2 ? codec.commit(s) : codec.rollback(s);
  }
  // What damage has done to Q does not last.
  std::fill(s.residual.begin(), s.residual.end(), 0.0f);
  ranks r(codec, tensors, mixed_size, 1);
  r.states[0] = s;
  for (float const v : r.exchange({x})) REQUIRE(std::isfinite(v));
}

TEST_CASE("states for other buckets, tensors that do not fit and fields out of range are refused") {
  auto tensors = mixed();
  std::vector<float> const x(mixed_size);
  powersgd const codec;
  auto s = codec.init(bucket{x, tensors});
  std::vector<std::byte> payload(4 * mixed_size);
  tensors[0].shape = {50, 40};
  CHECK_THROWS_AS(codec.encode(bucket{x, tensors}, s, payload, {}), argument_error);
  CHECK_THROWS_AS(codec.encode(bucket{std::span(x).first(9), {}}, s, payload, {}), argument_error);
  tensors[0].shape = {50, 41};
  CHECK_THROWS_AS(codec.init(bucket{x, tensors}), argument_error);  // over the next one
  tensors = mixed();
  tensors[3].begin += 6;
  CHECK_THROWS_AS(codec.init(bucket{x, tensors}), argument_error);  // behind the end
  for (powersgd const bad : {powersgd{.rank = 0}, powersgd{.rank = 5000}, powersgd{.refresh = -1},
                             powersgd{.min_rate = 0}, powersgd{.min_rate = test::not_a_number}})
    CHECK_THROWS_AS(bad.init(bucket{x, {}}), argument_error);
}

TEST_CASE("empty and small buckets, matrices without elements") {
  for (std::size_t n = 0; n < 20; ++n) {
    ranks r({.rank = 1, .min_rate = 0.1f}, {{0, {1, static_cast<std::int64_t>(n)}}}, n, 2);
    auto const x = test::normal(n, n);
    auto const out = r.exchange({x, x});
    CHECK(norm(difference(out, sum(x, x))) <= 1e-6 * norm(x));
  }
  ranks r({}, {{0, {0, 7}}, {0, {2}}}, 2, 1);
  CHECK(r.exchange({{3.0f, 4.0f}}) == std::vector<float>{3, 4});
}

TEST_CASE("every level gives the same bits: all shapes, ranks and values") {
  auto const run = [](kernels::kernel_set k, std::size_t m, std::size_t n, std::size_t r, std::vector<float> const& g,
                      std::vector<float> const& e) {
    std::vector<float> all(m * n + r * m + r * n + m * n);
    float *x = all.data(), *p = x + m * n, *q = p + r * m, *out = q + r * n;
    auto const factors = test::normal(r * n, 3);
    k.project(g.data(), e.data(), x, m, n, factors.data(), r, p);
    k.project_back(x, m, n, p, r, q);
    std::copy(e.begin(), e.end(), out);
    k.add_product(p, m, q, n, r, -0.3f, out);
    return all;
  };
  auto const check = [&](std::size_t m, std::size_t n, std::size_t r, std::vector<float> const& g) {
    auto const e = test::normal(m * n, 77);
    auto const expected = run(kernels::at(cpu_level::baseline), m, n, r, g, e);
    for (auto const level : {cpu_level::avx2, cpu_level::avx512})
      if (level <= supported_cpu_level()) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(r);
        auto const found = run(kernels::at(level), m, n, r, g, e);
        for (std::size_t i = 0; i < found.size(); ++i)
          REQUIRE((std::bit_cast<std::uint32_t>(found[i]) == std::bit_cast<std::uint32_t>(expected[i]) ||
                   (std::isnan(found[i]) && std::isnan(expected[i]))));
      }
  };
  for (std::size_t m = 1; m < 10; ++m)
    for (std::size_t n = 1; n < 40; ++n) check(m, n, 1 + (m + n) % 9, test::normal(m * n, m + n));
  for (std::size_t const n : {std::size_t{2047}, std::size_t{2049}, std::size_t{4096}, std::size_t{9001}})
    check(6, n, 5, test::normal(6 * n, n));
  check(20, 30, 4, test::any_bits(600, 2));
  // And they are the products that they say.
  std::size_t const m = 7, n = 5000, r = 6;
  auto const g = test::normal(m * n, 1), e = test::normal(m * n, 77), q = test::normal(r * n, 3);
  auto const found = run(kernels::best(), m, n, r, g, e);
  for (std::size_t k = 0; k < r; ++k)
    for (std::size_t i = 0; i < m; ++i) {
      double exact = 0;
      for (std::size_t j = 0; j < n; ++j)
        exact += static_cast<double>(g[i * n + j] + e[i * n + j]) * static_cast<double>(q[k * n + j]);
      CHECK(static_cast<double>(found[m * n + k * m + i]) == doctest::Approx(exact).epsilon(1e-5).scale(10));
    }
}

arena weights() { return arena({{"a", {30, 40}}, {"b", {30}}, {"c", {16, 4, 3, 3}}, {"d", {5, 4}}, {"e", {64, 20}}}); }

TEST_CASE("through sync::all_reduce: same bits on all ranks, bytes as predicted, skipped steps leave no trace") {
  for (int const size : {1, 2, 3, 4})
    for (std::size_t const bucket_bytes : {std::size_t{4} << 20, std::size_t{1000}})
      test::check_session(sync::all_reduce{.codec = powersgd{.rank = 2}, .bucket_bytes = bucket_bytes, .seed = 3},
                          weights, size);
}

TEST_CASE("a bucket holds whole matrices, however small it is meant to be") {
  auto a = weights();
  for (std::size_t const bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{4} << 20}) {
    std::size_t matrices = 0;
    for (auto part : sync::cut_buckets(a.parameters(), bytes))
      for (auto const& t : sync::tensors_in(a.parameters(), part)) matrices += t.shape.rank >= 2;
    CHECK(matrices == 4);
  }
}

TEST_CASE("least squares over ranks of different data are solved as without compression") {
  // Error feedback is what makes it exact: sums of residuals come through in the end.
  auto const run = [](auto const& sync) {
    double last = 0;
    comm::threads(3).run([&](auto& c) {
      arena a({{"w", {24, 20}}});
      auto const target = test::normal(480, 60 + static_cast<std::uint64_t>(c.rank()));
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.02f}, c);
      for (int s = 0; s < 1500; ++s) {
        session.begin();
        for (std::size_t i = 0; i < 480; ++i) a.gradients()[i] = a.weights()[i] - target[i];
        session.ready(0);
        session.step();
      }
      std::vector<double> mean(480);
      for (std::uint64_t r = 0; r < 3; ++r) {
        auto const t = test::normal(480, 60 + r);
        for (std::size_t i = 0; i < 480; ++i) mean[i] += static_cast<double>(t[i]) / 3;
      }
      double square = 0;
      for (std::size_t i = 0; i < 480; ++i) square += std::pow(static_cast<double>(a.weights()[i]) - mean[i], 2);
      if (c.rank() == 0) last = std::sqrt(square);
    });
    return last;
  };
  double const dense = run(sync::all_reduce{}), low = run(sync::all_reduce{.codec = powersgd{.rank = 1}});
  MESSAGE("distance from the solution: dense ", dense, ", rank 1 ", low);
  CHECK(dense < 1e-3);
  CHECK(low < 0.2);
}

}  // namespace compress_powersgd
