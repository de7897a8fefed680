// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "session.hpp"
#include "tools.hpp"

#include <dovetail/comm.hpp>
#include <dovetail/compress/count_sketch.hpp>
#include <dovetail/compress/fetch_sgd.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

namespace compress_sketch {

using namespace dovetail;
using compress::bucket;
using compress::context;
using compress::count_sketch;
using compress::fetch_sgd;
using compress::sketch_places;
using test::norm;

static_assert(codec<count_sketch> && codec<fetch_sgd>);
static_assert(!compress::codec_traits<count_sketch>::contraction);  // so that error feedback does not compile
static_assert(compress::codec_traits<fetch_sgd>::takes_back);

template <class Codec, class State>
std::vector<float> encode(Codec const& codec, std::span<float const> x, State& s, context const& where = {}) {
  std::vector<float> payload(codec.wire_size(x.size()) / 4);
  REQUIRE(codec.encode(bucket{x, {}}, s, std::as_writable_bytes(std::span(payload)), where) == 4 * payload.size());
  return payload;
}
template <class Codec, class State>
std::vector<float> decode(Codec const& codec, std::span<float const> payload, std::size_t n, State& s,
                          context const& where = {}) {
  std::vector<float> out(n);
  codec.decode_add(std::as_bytes(payload), out, 1, s, where);
  return out;
}
template <class Codec>
std::vector<float> through(Codec const& codec, std::span<float const> x, context const& where = {}) {
  auto s = codec.init(bucket{x, {}});
  return decode(codec, encode(codec, x, s, where), x.size(), s, where);
}

TEST_CASE("a sketch is exact where there are no more elements than cells, and of the size that it says") {
  count_sketch const codec{.rows = 3, .columns = 20};
  for (std::size_t n = 0; n <= 60; ++n) {
    auto const x = test::any_bits(n, n);
    CHECK(codec.wire_size(n) == 4 * n);
    auto const y = through(codec, x);
    for (std::size_t i = 0; i < n; ++i) REQUIRE((y[i] == x[i] || (std::isnan(y[i]) && std::isnan(x[i]))));
  }
  CHECK(codec.wire_size(61) == 240);
  CHECK(codec.wire_size(1 << 20) == 240);
  CHECK(count_sketch{.rows = 1, .columns = 30}.wire_size(30) == 120);
}

TEST_CASE("sketches are linear: the sum of sketches is the sketch of the sum") {
  std::size_t const n = 5000;
  count_sketch const codec{.rows = 5, .columns = 100};
  std::vector<float> a(n), b(n), both(n);
  for (std::size_t i = 0; i < n; ++i) {  // whole numbers: all sums are exact
    a[i] = static_cast<float>(i % 17) - 8;
    b[i] = static_cast<float>(i % 23) - 11;
    both[i] = a[i] + b[i];
  }
  auto s = codec.init(bucket{a, {}});
  auto sum = encode(codec, a, s, {.rank = 0});
  auto const other = encode(codec, b, s, {.rank = 1});  // the same places on all ranks
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
  CHECK(test::same_bits(sum, encode(codec, both, s)));
}

TEST_CASE("estimates are unbiased over 10,000 draws, and one row's variance is |x|² / columns") {
  std::size_t const n = 120, columns = 24;
  int const draws = 10'000;
  auto x = test::normal(n, 1);
  x[5] = 9;
  for (int const rows : {1, 3, 4}) {
    count_sketch const codec{.rows = rows, .columns = columns};
    auto s = codec.init(bucket{x, {}});
    std::vector<double> mean(n), square(n);
    for (int d = 0; d < draws; ++d) {
      context const where{.step = d, .seed = 3};
      auto const y = decode(codec, encode(codec, x, s, where), n, s, where);
      for (std::size_t i = 0; i < n; ++i) {
        double const error = static_cast<double>(y[i]) - static_cast<double>(x[i]);
        mean[i] += error / draws;
        square[i] += error * error / draws;
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      CAPTURE(i);
      CHECK(std::fabs(mean[i]) < 5 * std::sqrt(square[i] / draws));
      double const others = norm(x) * norm(x) - static_cast<double>(x[i]) * static_cast<double>(x[i]);
      if (rows == 1)
        CHECK(square[i] == doctest::Approx(others / columns).epsilon(0.15));
      else
        CHECK(square[i] < others / columns);
    }
  }
}

TEST_CASE("signs and cells are 4-wise independent: fourth moments of sums are those of independent signs") {
  // One cell: S = sum of s(i). Over draws E S² = n and E S⁴ = 3n² − 2n, as no more than 4 signs are multiplied. Of
  // indices that differ in one digit, in the other, and in both.
  for (std::size_t const stride : {std::size_t{1}, std::size_t{64}, std::size_t{65}}) {
    std::size_t const n = 4096, used = 12;
    std::vector<float> x(n);
    for (std::size_t i = 0; i < used; ++i) x[i * stride] = 1;
    double second = 0, fourth = 0;
    int const draws = 20'000;
    sketch_places places;
    for (int d = 0; d < draws; ++d) {
      places.draw(n, 1, 1, {.step = d, .seed = 8});
      float s = 0;
      places.add(x, 0, &s);
      second += std::pow(static_cast<double>(s), 2) / draws;
      fourth += std::pow(static_cast<double>(s), 4) / draws;
    }
    CHECK(second == doctest::Approx(used).epsilon(0.05));
    CHECK(fourth == doctest::Approx(3.0 * used * used - 2.0 * used).epsilon(0.08));
  }
}

TEST_CASE("the median finds the heavy elements") {
  std::size_t const n = 4096;
  auto x = test::normal(n, 2);
  for (std::size_t i = 0; i < 8; ++i) x[500 * i] = i % 2 ? 100.0f : -100.0f;
  auto const y = through(count_sketch{.rows = 5, .columns = 512}, x, {.seed = 4});
  double const sigma = norm(x) / std::sqrt(512.0);
  for (std::size_t i = 0; i < 8; ++i) CHECK(std::fabs(static_cast<double>(y[500 * i] - x[500 * i])) < 2 * sigma);
}

TEST_CASE("an element that is not finite is decoded so; zeros are zeros") {
  std::size_t const n = 3000;
  for (int const rows : {1, 4, 5})
    for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number})
      for (std::size_t const at : {std::size_t{0}, std::size_t{1234}, n - 1}) {
        auto x = test::normal(n, 3);
        x[at] = bad;
        auto const y = through(count_sketch{.rows = rows, .columns = 100}, x);
        CHECK_FALSE(std::isfinite(y[at]));
        if (rows == 5) CHECK(std::count_if(y.begin(), y.end(), [](float v) { return !std::isfinite(v); }) < 20);
      }
  std::vector<float> const zeros(n);
  for (float const v : through(count_sketch{.columns = 100}, zeros)) REQUIRE(v == 0);
  std::vector<float> const tiny(n, std::numeric_limits<float>::denorm_min());
  for (float const v : through(count_sketch{.columns = 100}, tiny)) REQUIRE(std::isfinite(v));
}

TEST_CASE("FetchSGD with as many cells as elements is top-k with momentum, masked, and all that is owed") {
  std::size_t const n = 50, k = 5;
  float const momentum = 0.8f;
  fetch_sgd const codec{.columns = n, .ratio = 0.1f, .momentum = momentum};
  fetch_sgd const subtracts{.columns = n, .ratio = 0.1f, .momentum = momentum, .clear = false};
  std::vector<float> const none(n);
  auto s = codec.init(bucket{none, {}}), other = s;
  std::vector<float> u(n), e(n);
  for (std::uint64_t step = 0; step < 30; ++step) {
    auto const g = test::normal(n, step);
    for (std::size_t i = 0; i < n; ++i) e[i] += u[i] = momentum * u[i] + g[i];
    auto order = std::vector<std::size_t>(n);
    for (std::size_t i = 0; i < n; ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return std::fabs(e[a]) > std::fabs(e[b]); });
    std::vector<float> expected(n);
    for (std::size_t i = 0; i < k; ++i) {
      expected[order[i]] = e[order[i]];
      e[order[i]] = u[order[i]] = 0;
    }
    CHECK(decode(codec, encode(codec, g, s), n, s) == expected);
    codec.commit(s);
    CHECK(decode(subtracts, encode(subtracts, g, other), n, other) == expected);
    subtracts.commit(other);
    CHECK(other == s);
    CHECK(std::equal(e.begin(), e.end(), s.owed.begin()));
  }
}

TEST_CASE("FetchSGD: cleared cells keep what is owed bounded, what is subtracted grows where columns are few") {
  std::size_t const n = 1000;
  auto const owed = [&](bool clear, std::size_t columns) {
    fetch_sgd const codec{.rows = 3, .columns = columns, .ratio = 0.02f, .momentum = 0, .clear = clear};
    std::vector<float> const none(n);
    auto s = codec.init(bucket{none, {}});
    for (std::uint64_t step = 0; step < 400; ++step) {
      decode(codec, encode(codec, test::normal(n, step), s), n, s);
      codec.commit(s);
    }
    return norm(s.owed.span()) / std::sqrt(static_cast<double>(s.places.rows()));
  };
  double const cleared = owed(true, 200), subtracted = owed(false, 200), all = owed(false, n);
  MESSAGE("cleared ", cleared, ", subtracted ", subtracted, ", subtracted from as many cells as elements ", all);
  CHECK(cleared < 1000);
  CHECK(all < 1000);
  CHECK(subtracted > 1e5);
}

TEST_CASE("FetchSGD finds heavy elements in the noise, and pays what it owes") {
  std::size_t const n = 20'000;
  fetch_sgd const codec{.rows = 5, .columns = 1000, .ratio = 0.001f, .momentum = 0};
  std::vector<float> x(n);
  auto const noise = test::normal(n, 1);
  for (std::size_t i = 0; i < n; ++i) x[i] = 0.001f * noise[i];
  for (std::size_t i = 0; i < 40; ++i) x[487 * i] = 1 + 0.01f * static_cast<float>(i);
  auto s = codec.init(bucket{x, {}});
  std::vector<double> paid(n);
  int const steps = 200;
  for (int step = 0; step < steps; ++step) {
    auto const y = decode(codec, encode(codec, x, s), n, s);
    codec.commit(s);
    CHECK(std::count_if(y.begin(), y.end(), [](float v) { return v != 0; }) <= 20);
    for (std::size_t i = 0; i < n; ++i) paid[i] += static_cast<double>(y[i]) / steps;
  }
  for (std::size_t i = 0; i < 40; ++i)  // 20 of 40 in turns
    CHECK(paid[487 * i] == doctest::Approx(static_cast<double>(x[487 * i])).epsilon(0.1));
}

TEST_CASE("FetchSGD: not finite is not finite everywhere, and leaves momentum and debt as they were") {
  for (std::size_t const columns : {std::size_t{50}, std::size_t{1000}})
    for (float const bad : {test::infinity, test::not_a_number}) {
      fetch_sgd const codec{.columns = columns};
      auto x = test::normal(900, 1);
      auto s = codec.init(bucket{x, {}});
      decode(codec, encode(codec, x, s), 900, s);
      codec.commit(s);
      auto const before = s;
      x[77] = bad;
      for (float const v : decode(codec, encode(codec, x, s), 900, s)) REQUIRE_FALSE(std::isfinite(v));
      codec.commit(s);
      CHECK(s == before);
    }
}

TEST_CASE("FetchSGD: taken back, saved and loaded, summed on the wire or one by one: the same bits") {
  std::size_t const n = 2000;
  fetch_sgd const codec{.rows = 3, .columns = 100, .ratio = 0.01f};
  std::vector<float> const none(n);
  auto a = codec.init(bucket{none, {}}), b = a, c = a;
  for (std::uint64_t step = 0; step < 12; ++step) {
    context const where{.step = static_cast<std::int64_t>(step), .seed = 2};
    auto const g = test::normal(n, step), other = test::normal(n, 100 + step);
    auto const before = a;
    decode(codec, encode(codec, other, a, where), n, a, where);
    CHECK_FALSE(a == before);
    codec.rollback(a);
    CHECK(a == before);
    auto sent = encode(codec, g, a, where);
    auto const second = encode(codec, other, b, where);
    // one by one
    context first = where, last = where;
    first.last = last.first = false;
    std::vector<float> out(n);
    codec.decode_add(std::as_bytes(std::span(std::as_const(sent))), out, 1, b, first);
    codec.decode_add(std::as_bytes(std::span(second)), out, 1, b, last);
    codec.commit(b);
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] += second[i];
    CHECK(test::same_bits(decode(codec, sent, n, a, where), out));
    CHECK(test::same_bits(decode(codec, sent, n, a, where), out));  // again: the same step
    codec.commit(a);
    CHECK(a == b);
    if (step == 5) {
      auto const from = a.tensors(""), to = c.tensors("");
      REQUIRE(from.size() == 2);
      for (std::size_t t = 0; t < 2; ++t) {
        CHECK(from[t].kind == state_kind::replicated);
        std::copy(from[t].bytes.begin(), from[t].bytes.end(), to[t].bytes.begin());
      }
      b = c;
    }
  }
}

TEST_CASE("payloads of another size are refused, any bits stay in bounds") {
  std::size_t const n = 700;
  auto const x = test::normal(n, 1);
  auto const check = [&](auto const& codec) {
    auto s = codec.init(bucket{x, {}});
    std::vector<float> payload(codec.wire_size(n) / 4), out(n), shorter(n - 1);
    auto const bytes = std::as_writable_bytes(std::span(payload));
    CHECK_THROWS_AS(codec.encode(bucket{x, {}}, s, bytes.first(bytes.size() - 1), {}), argument_error);
    CHECK_THROWS_AS(codec.decode_add(bytes.first(bytes.size() - 1), out, 1, s, {}), input_error);
    CHECK(out == std::vector<float>(n));
    random_stream const random{3};
    std::uint64_t draw = 0;
    for (int repeat = 0; repeat < 50; ++repeat) {
      for (auto& v : payload) v = std::bit_cast<float>(random.word(draw++));
      codec.decode_add(bytes, out, 1, s, {});
      codec.rollback(s);
    }
  };
  check(count_sketch{.rows = 4, .columns = 50});
  check(fetch_sgd{.rows = 4, .columns = 50});
  check(fetch_sgd{.rows = 4, .columns = 500});
  fetch_sgd const codec{};
  auto s = codec.init(bucket{x, {}});
  std::vector<std::byte> payload(4 * n);
  std::vector<float> out(n - 1);
  CHECK_THROWS_AS(codec.encode(bucket{std::span(x).first(3), {}}, s, payload, {}), argument_error);
  CHECK_THROWS_AS(codec.decode_add(payload, out, 1, s, {}), argument_error);
  CHECK_THROWS_AS((count_sketch{.rows = 17}.init(bucket{x, {}})), argument_error);
  CHECK_THROWS_AS((count_sketch{.columns = 0}.init(bucket{x, {}})), argument_error);
  CHECK_THROWS_AS((fetch_sgd{.ratio = 0}.init(bucket{x, {}})), argument_error);
  CHECK_THROWS_AS((fetch_sgd{.momentum = 1}.init(bucket{x, {}})), argument_error);
}

TEST_CASE("through sync::all_reduce: same bits on all ranks, bytes as predicted, skipped steps leave no trace") {
  auto const memory = [] { return arena({{"a", {30, 40}}, {"b", {30}}, {"c", {700}}}); };
  fetch_sgd const fetch{.rows = 3, .columns = 100};
  for (int const size : {1, 2, 3, 4}) {
    test::check_session(sync::all_reduce{.codec = count_sketch{.rows = 3, .columns = 100}, .bucket_bytes = 1000},
                        memory, size);
    test::check_session(sync::all_reduce{.codec = fetch, .bucket_bytes = 1000}, memory, size);
    test::check_session(sync::all_reduce{.codec = fetch, .plan = sync::exchange::all_gather{}, .bucket_bytes = 1000},
                        memory, size);
  }
}

TEST_CASE("least squares with few weights that matter: the nearer, the larger the sketch, and exact where it is all") {
  auto const distance = [](std::size_t columns) {
    double last = 0;
    comm::threads(2).run([&](auto& c) {
      arena a({{"w", {1000}}});
      std::vector<float> target(1000);
      for (std::size_t i = 0; i < 1000; i += 20) target[i] = test::normal(1, i)[0];
      sync::all_reduce const sync{.codec = fetch_sgd{.rows = 3, .columns = columns, .ratio = 0.02f, .momentum = 0.5f}};
      auto session = sync.join(a.parameters(), optim::sgd{.lr = 0.005f}, c);
      for (int s = 0; s < 2000; ++s) {
        session.begin();
        for (std::size_t i = 0; i < 1000; ++i) a.gradients()[i] = a.weights()[i] - target[i];
        session.ready(0);
        session.step();
      }
      double square = 0;
      for (std::size_t i = 0; i < 1000; ++i) square += std::pow(static_cast<double>(a.weights()[i] - target[i]), 2);
      if (c.rank() == 0) last = std::sqrt(square) / norm(target);
    });
    return last;
  };
  double const few = distance(100), many = distance(250), all = distance(1000);
  MESSAGE("of the distance are left ", few, " and ", many, ", with as many cells as weights ", all);
  CHECK(few < 0.75);
  CHECK(many < 0.3);
  CHECK(all < 1e-3);
}

}  // namespace compress_sketch
