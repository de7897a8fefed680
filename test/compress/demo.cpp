// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "session.hpp"
#include "tools.hpp"

#include <dovetail/comm.hpp>
#include <dovetail/compress/demo.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

namespace compress_demo {

using namespace dovetail;
using compress::bucket;
using compress::bucket_tensor;
using compress::context;
using compress::cosine_transform;
using compress::demo;
using compress::tiled_tensor;
using test::difference;
using test::norm;

static_assert(codec<demo> && compress::codec_traits<demo>::takes_back);

/// Matrices of which one has prime dimensions, a vector, a convolution's weights, and elements of no tensor.
std::vector<bucket_tensor> mixed() { return {{0, {67, 101}}, {6767, {130}}, {6897, {3, 5}}, {6912, {8, 4, 3, 3}}}; }
constexpr std::size_t mixed_size = 6912 + 288 + 9;

/// Payloads of several ranks, decoded by one as they come.
std::vector<float> exchange(demo const& codec, std::vector<bucket_tensor> const& tensors,
                            std::vector<std::vector<float>> const& gradients, std::vector<demo::state>& states,
                            bool made = true) {
  std::size_t const n = gradients[0].size();
  std::vector<std::vector<std::byte>> payloads;
  for (std::size_t i = 0; i < states.size(); ++i) {
    bucket const b{gradients[i], tensors};
    payloads.emplace_back(codec.wire_size(b));
    REQUIRE(codec.encode(b, states[i], payloads.back()) == payloads.back().size());
  }
  std::vector<float> out;
  for (auto& s : states) {
    std::vector<float> own(n);
    for (std::size_t i = 0; i < states.size(); ++i)
      codec.decode_add(payloads[i], own, 1, s,
                       {.rank = static_cast<int>(i), .first = i == 0, .last = i + 1 == states.size()});
    if (!out.empty()) REQUIRE(test::same_bits(own, out));
    out = own;
  }
  for (auto& s : states) made ? codec.commit(s) : codec.rollback(s);
  return out;
}

TEST_CASE("tiles: prime dimensions are padded, not cut into single elements; indices have 6 or 12 bits") {
  tiled_tensor const words(0, 50257, 768), prime(0, 32003, 1), line(0, 1, 257), small(0, 3, 5);
  CHECK(words.height == 64);
  CHECK(words.width == 64);
  CHECK(words.down == 786);
  CHECK(words.index_bits() == 12);
  CHECK(prime.height == 64);
  CHECK(prime.width == 1);
  CHECK(prime.index_bits() == 6);
  CHECK(line.width == 52);
  CHECK(line.across == 5);
  CHECK(line.index_bits() == 6);
  CHECK(small.area() == 15);
  for (std::size_t n = 1; n < 2000; ++n) {
    tiled_tensor const t(0, n, 1);
    CHECK(t.height <= 64);
    CHECK(t.down * t.height >= n);
    CHECK((t.down - 1) * t.height < n);
  }
}

TEST_CASE("the transform is orthonormal, its own inverse's inverse, and the DCT-II by its formula") {
  auto const& kernel = compress::demo_kernels::best();
  cosine_transform transform;
  for (std::size_t const h : {1u, 2u, 3u, 7u, 34u, 64u})
    for (std::size_t const w : {1u, 5u, 33u, 64u}) {
      tiled_tensor const t(0, h, w);
      transform.prepare(h);
      transform.prepare(w);
      cosine_transform::tile x{};
      auto const values = test::normal(h * w, h + w);
      for (std::size_t i = 0; i < h; ++i) std::copy_n(&values[i * w], w, &x[i * 64]);
      auto const before = x;
      transform.forward(x, t, kernel);
      CHECK(norm(x) == doctest::Approx(norm(values)).epsilon(1e-5));
      double exact = 0;  // one coefficient
      std::size_t const k = h / 2, l = w / 3;
      double const pi = std::acos(-1.0);
      for (std::size_t i = 0; i < h; ++i)
        for (std::size_t j = 0; j < w; ++j)
          exact += static_cast<double>(values[i * w + j]) *
                   std::cos(pi * static_cast<double>((2 * i + 1) * k) / static_cast<double>(2 * h)) *
                   std::cos(pi * static_cast<double>((2 * j + 1) * l) / static_cast<double>(2 * w));
      exact *=
          std::sqrt((k ? 2.0 : 1.0) / static_cast<double>(h)) * std::sqrt((l ? 2.0 : 1.0) / static_cast<double>(w));
      CHECK(static_cast<double>(x[k * 64 + l]) == doctest::Approx(exact).epsilon(1e-4).scale(0.1));
      transform.inverse(x, t, kernel);
      CHECK(norm(difference(x, before)) < 1e-5 * norm(values));
    }
}

TEST_CASE("every level gives the same bits") {
  auto const a = test::normal(64 * 64, 1), b = test::normal(64 * 64, 2);
  auto const run = [&](cpu_level level, std::size_t rows, std::size_t depth) {
    auto const kernel = compress::demo_kernels::at(level);
    std::vector<float> out(2 * 64 * 64);
    kernel.multiply(a.data(), b.data(), rows, depth, out.data());
    kernel.accumulate(a.data(), b.data(), 0.999f, rows * depth - 1, out.data() + 64 * 64);
    return out;
  };
  for (auto const level : {cpu_level::avx2, cpu_level::avx512})
    if (level <= supported_cpu_level())
      for (std::size_t rows = 4; rows <= 64; rows += 4)
        for (std::size_t const depth : {1u, 2u, 33u, 64u})
          CHECK(test::same_bits(run(cpu_level::baseline, rows, depth), run(level, rows, depth)));
}

TEST_CASE("sizes are exact: values as floats, then indices in the bits that they need") {
  std::vector<float> const x(mixed_size);
  auto const tensors = mixed();
  // 67 x 101 is 2 x 2 tiles of 34 x 51 (11 bits), 130 is 3 of 44 (6), 3 x 5 one (4), 8 x 36 one of 288 (9), 9 one (4).
  demo const codec{.coefficients = 10};
  CHECK(compress::wire_size(codec, bucket{x, tensors}) ==
        4 * (40 + 30 + 10 + 10 + 9) + (440 + 180 + 40 + 90 + 36 + 7) / 8);
  CHECK(codec.wire_size(0) == 0);
  CHECK(codec.wire_size(1) == 4 + 1);
  CHECK(demo{}.wire_size(64) == 4 * 32 + 24);
  std::vector<bucket_tensor> const square{{0, {64, 64}}};
  CHECK(demo{}.wire_size(bucket{std::span(x).first(4096), square}) == 4 * 32 + 48);
}

TEST_CASE("sent and kept add up to momentum and gradient, and less is kept than there was") {
  auto const tensors = mixed();
  demo const codec{.coefficients = 16, .beta = 0.9f};
  std::vector<std::vector<float>> inputs{test::normal(mixed_size, 1), std::vector<float>(mixed_size, 2.0f)};
  auto& sparse = inputs.emplace_back(mixed_size);
  for (std::size_t i = 0; i < mixed_size; i += 100) sparse[i] = test::normal(1, i)[0];
  auto& heavy = inputs.emplace_back(test::normal(mixed_size, 3));
  for (float& v : heavy) v = v * v * v;
  auto& alternating = inputs.emplace_back(mixed_size);
  for (std::size_t i = 0; i < mixed_size; ++i) alternating[i] = i % 2 ? 1.0f : -1.0f;
  inputs.emplace_back(mixed_size);  // zero
  for (auto const& x : inputs) {
    std::vector<demo::state> s{codec.init(bucket{x, tensors})};
    for (int step = 0; step < 4; ++step) {
      std::vector<float> owed(mixed_size);
      for (std::size_t i = 0; i < mixed_size; ++i) owed[i] = 0.9f * s[0].momentum[i] + x[i];
      auto const out = exchange(codec, tensors, {x}, s);
      std::vector<float> both(out);
      for (std::size_t i = 0; i < mixed_size; ++i) both[i] += s[0].momentum[i];
      CHECK(norm(difference(both, owed)) <= 1e-6 * norm(owed));
      // k of the area of the largest tile, 1734
      CHECK(std::pow(norm(s[0].momentum.span()), 2) <= (1 - 16 / 1734.0) * std::pow(norm(owed), 2) + 1e-9);
    }
  }
  // A line of one wave is one coefficient: nothing is left.
  std::vector<float> wave(64);
  for (std::size_t i = 0; i < 64; ++i) wave[i] = std::cos(3.14159265f * (2 * static_cast<float>(i) + 1) * 5 / 128);
  demo const one{.coefficients = 1, .beta = 0};
  std::vector<demo::state> s{one.init(bucket{wave, {}})};
  CHECK(norm(difference(exchange(one, {}, {wave}, s), wave)) < 1e-5);
}

TEST_CASE("a coefficient is the mean over the ranks that sent it, times their number") {
  // Waves of different frequencies: rank 0 sends 2 and 7, rank 1 sends 7 and 11, rank 2 none of these.
  auto const waves = [](std::vector<std::pair<int, float>> const& parts) {
    std::vector<float> x(64);
    for (auto const& [k, size] : parts)
      for (std::size_t i = 0; i < 64; ++i)
        x[i] += size * std::cos(3.14159265f * (2 * static_cast<float>(i) + 1) * static_cast<float>(k) / 128);
    return x;
  };
  demo const codec{.coefficients = 2};
  std::vector<float> const none(64);
  std::vector<demo::state> s(3, codec.init(bucket{none, {}}));
  auto const out = exchange(
      codec, {}, {waves({{2, 1.0f}, {7, 2.0f}}), waves({{7, 4.0f}, {11, 1.0f}}), waves({{20, 1.0f}, {30, 1.0f}})}, s);
  auto const expected = waves({{2, 3.0f}, {7, 9.0f}, {11, 3.0f}, {20, 3.0f}, {30, 3.0f}});
  CHECK(norm(difference(out, expected)) < 1e-4);
  // All ranks alike: their sum.
  std::vector<demo::state> t(3, codec.init(bucket{none, {}}));
  auto const x = waves({{3, 1.0f}, {9, 2.0f}});
  CHECK(norm(difference(exchange(codec, {}, {x, x, x}, t), waves({{3, 3.0f}, {9, 6.0f}}))) < 1e-4);
}

TEST_CASE("not finite is not finite in its tile, and no rank's momentum learns of it") {
  auto const tensors = mixed();
  demo const codec{.coefficients = 8};
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number})
    for (std::size_t const where :
         {std::size_t{0}, std::size_t{6766}, std::size_t{6800}, std::size_t{6900}, std::size_t{7000}, mixed_size - 1}) {
      std::vector<float> const none(mixed_size);
      std::vector<demo::state> s(2, codec.init(bucket{none, tensors}));
      exchange(codec, tensors, {test::normal(mixed_size, 1), test::normal(mixed_size, 2)}, s);
      auto const before = s;
      std::vector<std::vector<float>> g{test::normal(mixed_size, 3), test::normal(mixed_size, 4)};
      g[1][where] = bad;
      CHECK_FALSE(std::isfinite(exchange(codec, tensors, g, s)[where]));
      CHECK(s[1] == before[1]);
    }
  // Momentum and gradient together: sent, and it begins anew, though the step is taken back.
  demo const all{.coefficients = 1, .beta = 1};
  auto huge = test::normal(64, 6);
  for (float& v : huge) v *= 3e37f;
  std::vector<demo::state> s{all.init(bucket{huge, {}})};
  auto const finite = [&](bool made) {
    auto const out = exchange(all, {}, {huge}, s, made);
    for (float const v : s[0].momentum.span()) REQUIRE(std::isfinite(v));
    return std::all_of(out.begin(), out.end(), [](float v) { return std::isfinite(v); });
  };
  CHECK(finite(true));
  int steps = 0;
  while (finite(true) && ++steps < 200) {
    auto const before = s;
    if (finite(false)) continue;
    CHECK(finite(false));
    CHECK_FALSE(s == before);
    steps = -1;
    break;
  }
  CHECK(steps == -1);
}

TEST_CASE("taken back, saved and loaded: the same bits") {
  auto const tensors = mixed();
  demo const codec{.coefficients = 8};
  std::vector<float> const none(mixed_size);
  std::vector<demo::state> a(2, codec.init(bucket{none, tensors})), b = a, c = a;
  for (std::uint64_t step = 0; step < 8; ++step) {
    std::vector<std::vector<float>> const g{test::normal(mixed_size, step), test::normal(mixed_size, 100 + step)},
        other{test::normal(mixed_size, 200 + step), test::normal(mixed_size, 300 + step)};
    auto const before = a;
    exchange(codec, tensors, other, a, false);
    CHECK(a == before);
    CHECK(test::same_bits(exchange(codec, tensors, g, a), exchange(codec, tensors, g, b)));
    CHECK(a == b);
    if (step == 4) {
      for (std::size_t i = 0; i < 2; ++i) {
        auto const from = a[i].tensors("x."), to = c[i].tensors("x.");
        REQUIRE(from.size() == 1);
        CHECK(from[0].kind == state_kind::summed);
        std::copy(from[0].bytes.begin(), from[0].bytes.end(), to[0].bytes.begin());
      }
      b = c;
    }
  }
}

TEST_CASE("damaged payloads are refused or stay in bounds, all or nothing") {
  auto const tensors = mixed();
  demo const codec{.coefficients = 8};
  auto const x = test::normal(mixed_size, 1);
  bucket const b{x, tensors};
  auto s = codec.init(b);
  std::vector<std::byte> const good = [&] {
    std::vector<std::byte> payload(codec.wire_size(b));
    codec.encode(b, s, payload);
    return payload;
  }();
  std::vector<float> out(mixed_size);
  random_stream const random{9};
  std::uint64_t draw = 0;
  int thrown = 0;
  auto const attempt = [&](std::vector<std::byte> const& bytes) {
    std::fill(out.begin(), out.end(), 0.0f);
    try {
      codec.decode_add(bytes, out, 1, s, {});
    } catch (input_error const&) {
      ++thrown;
      REQUIRE(out == std::vector<float>(mixed_size));
    }
  };
  for (int repeat = 0; repeat < 300; ++repeat) {
    auto flipped = good;
    std::uint32_t const bit = random.word(draw++) % static_cast<std::uint32_t>(8 * good.size());
    flipped[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    attempt(flipped);
    auto noise = good;
    for (auto& v : noise) v = static_cast<std::byte>(random.word(draw++));
    attempt(noise);
    auto shorter = good;
    shorter.resize(random.word(draw++) % good.size());
    CHECK_THROWS_AS(codec.decode_add(shorter, out, 1, s, {}), input_error);
  }
  CHECK(thrown > 300);
  auto longer = good;
  longer.push_back({});
  CHECK_THROWS_AS(codec.decode_add(longer, out, 1, s, {}), input_error);
  // A damaged payload among good ones is left out, and the others are as they were.
  std::vector<float> expected(mixed_size), found(mixed_size);
  codec.decode_add(good, expected, 1, s, {.last = false});
  codec.decode_add(good, expected, 1, s, {.first = false});
  codec.decode_add(good, found, 1, s, {.last = false});
  CHECK_THROWS_AS(codec.decode_add(longer, found, 1, s, {.first = false}), input_error);
  codec.decode_add(good, found, 1, s, {.first = false});
  CHECK(test::same_bits(expected, found));
  // Indices that repeat or fall: 6 bits each, behind two values
  auto const with_indices = [](unsigned first, unsigned second) {
    std::vector<std::byte> payload(10);
    payload[8] = static_cast<std::byte>(first | second << 6);
    payload[9] = static_cast<std::byte>(second >> 2);
    return payload;
  };
  demo const two{.coefficients = 2};
  auto line = two.init(bucket{std::span(x).first(64), {}});
  std::vector<float> values(64);
  CHECK_NOTHROW(two.decode_add(with_indices(7, 63), values, 1, line, {}));
  CHECK_THROWS_AS(two.decode_add(with_indices(7, 7), values, 1, line, {}), input_error);
  CHECK_THROWS_AS(two.decode_add(with_indices(8, 7), values, 1, line, {}), input_error);
  // Room, buckets, fields
  std::vector<std::byte> small(good.size() - 1);
  CHECK_THROWS_AS(codec.encode(b, s, small), argument_error);
  CHECK_THROWS_AS(codec.encode(bucket{x, {}}, s, longer), argument_error);
  CHECK_THROWS_AS(codec.encode(bucket{std::span(x).first(5), {}}, s, longer), argument_error);
  auto twice = tensors;
  twice[1].begin -= 1;
  CHECK_THROWS_AS(codec.init(bucket{x, twice}), argument_error);
  twice = tensors;
  twice[3].begin += 20;
  CHECK_THROWS_AS(codec.init(bucket{x, twice}), argument_error);
  for (demo const bad : {demo{.coefficients = 0}, demo{.coefficients = 4097}, demo{.beta = 1.5f}, demo{.beta = -1}})
    CHECK_THROWS_AS(bad.init(b), argument_error);
}

TEST_CASE("small and empty buckets") {
  for (std::size_t n = 0; n < 140; ++n) {
    demo const codec{.coefficients = 64};  // all of them: exact
    auto const x = test::normal(n, n);
    std::vector<demo::state> s{codec.init(bucket{x, {}})};
    auto const out = exchange(codec, {}, {x}, s);
    CHECK(norm(difference(out, x)) <= 1e-6 * norm(x));
  }
}

TEST_CASE("through sync::all_reduce: same bits on all ranks, bytes as predicted, skipped steps leave no trace") {
  auto const memory = [] { return arena({{"a", {67, 40}}, {"b", {30}}, {"c", {8, 4, 3, 3}}, {"d", {3}}}); };
  for (int const size : {1, 2, 3, 4})
    test::check_session(sync::all_reduce{.codec = demo{.coefficients = 8}, .bucket_bytes = 1000}, memory, size);
}

}  // namespace compress_demo
