// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include <doctest/doctest.h>

namespace compress_codecs {

using namespace dovetail;
using compress::error_feedback;

static_assert(codec<compress::identity> && codec<compress::fp16> && codec<compress::bf16> && codec<compress::sign> &&
              codec<compress::top_k> && codec<error_feedback<compress::top_k>> &&
              codec<error_feedback<compress::sign>> && codec<error_feedback<compress::fp16>> &&
              codec<error_feedback<compress::identity>>);
static_assert(std::is_same_v<compress::fp16::wire_type, dovetail::fp16>);
static_assert(compress::top_k{}.wire_size(25'000'000) == 8 * 250'000);
static_assert(compress::top_k{.ratio = 0.1f}.count(10) == 1 && compress::top_k{.ratio = 0.3f}.count(10) == 3);
static_assert(compress::sign{}.wire_size(25'000'000) == 4 + 25'000'000 / 8);
static_assert(compress::sign{.block = 64}.wire_size(65) == 8 + 9);

TEST_CASE_TEMPLATE("a payload has exactly wire_size(n) bytes and every byte is written", Codec, compress::identity,
                   compress::fp16, compress::bf16, compress::sign, compress::top_k, error_feedback<compress::top_k>,
                   error_feedback<compress::sign>) {
  Codec const codec{};
  auto check = [&](std::size_t n) {
    auto const x = test::normal(n, n);
    std::size_t const bytes = codec.wire_size(n);
    std::vector<std::byte> zeros(bytes + 8, std::byte{0}), ones(bytes + 8, std::byte{0xff});
    compress::bucket const b{x, {}};
    auto state = codec.init(b), again = state;
    REQUIRE(codec.encode(b, state, zeros) == bytes);
    REQUIRE(codec.encode(b, again, std::span(ones).first(bytes)) == bytes);
    REQUIRE(std::equal(zeros.begin(), zeros.begin() + static_cast<std::ptrdiff_t>(bytes), ones.begin()));
    REQUIRE(std::all_of(ones.end() - 8, ones.end(), [](std::byte v) { return v == std::byte{0xff}; }));
    REQUIRE(state == again);
    if (bytes) CHECK_THROWS_AS(codec.encode(b, state, std::span(zeros).first(bytes - 1)), argument_error);
    REQUIRE(state == again);
  };
  for (std::size_t n = 0; n <= 300; ++n) check(n);
  for (std::uint64_t i = 0; i < 5; ++i) check(1000 + random_stream{9}.word(i) % 100000);
}

TEST_CASE_TEMPLATE("an empty bucket, which may have no memory, is encoded and decoded", Codec, compress::identity,
                   compress::fp16, compress::bf16, compress::sign, compress::top_k, error_feedback<compress::identity>,
                   error_feedback<compress::fp16>, error_feedback<compress::bf16>, error_feedback<compress::sign>,
                   error_feedback<compress::top_k>) {
  Codec const codec{};
  compress::bucket const nothing;
  auto state = codec.init(nothing);
  auto const before = state;
  std::vector<std::byte> payload(compress::wire_size(codec, nothing));
  CHECK(codec.encode(nothing, state, payload) == payload.size());
  codec.decode_add(payload, {}, 2);
  CHECK(state == before);
}

TEST_CASE_TEMPLATE("encoding is deterministic, decoding adds with a weight and states are values", Codec,
                   compress::identity, compress::fp16, compress::bf16, compress::sign, compress::top_k,
                   error_feedback<compress::top_k>, error_feedback<compress::sign>) {
  Codec const codec{};
  for (std::size_t const n : {std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9}, std::size_t{5000}}) {
    auto const x = test::normal(n, 3 * n), y = test::normal(n, 5 * n);
    auto state = codec.init(compress::bucket{x, {}});
    test::encode(codec, x, state);
    auto copy = state;  // after a step, so that there is something to copy
    auto const a = test::encode(codec, y, state), b = test::encode(codec, y, copy);
    CHECK(a == b);
    CHECK(state == copy);
    auto const once = test::decode(codec, a, n);
    std::vector<float> out(n, 1.0f);
    codec.decode_add(a, out, -2.0f);
    for (std::size_t i = 0; i < n; ++i) REQUIRE(out[i] == 1.0f + -2.0f * once[i]);
  }
}

TEST_CASE_TEMPLATE("a non-finite gradient is visible in what is decoded", Codec, compress::identity, compress::fp16,
                   compress::bf16, compress::sign, compress::top_k, error_feedback<compress::top_k>,
                   error_feedback<compress::sign>, error_feedback<compress::fp16>) {
  Codec const codec{};
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number})
    for (std::size_t const n : {std::size_t{1}, std::size_t{9}, std::size_t{40000}})
      for (std::size_t const at : {std::size_t{0}, n / 2, n - 1}) {
        auto x = test::normal(n, n);
        x[at] = bad;
        CHECK_FALSE(std::isfinite(test::decode(codec, test::encode(codec, x), n)[at]));
      }
}

TEST_CASE_TEMPLATE("an all-zero bucket decodes to zeros and nothing becomes NaN at the edges of the range", Codec,
                   compress::identity, compress::bf16, compress::sign, compress::top_k, error_feedback<compress::top_k>,
                   error_feedback<compress::sign>) {
  Codec const codec{};
  float const tiny = std::numeric_limits<float>::denorm_min(), huge = 0x1.fp127f;
  for (float const value : {0.0f, -0.0f, tiny, -tiny, huge, -huge})
    for (std::size_t const n : {std::size_t{1}, std::size_t{8}, std::size_t{5000}}) {
      std::vector<float> const x(n, value);
      for (float const v : test::decode(codec, test::encode(codec, x), n)) {
        REQUIRE(std::isfinite(v));
        REQUIRE((v == 0 || v == value));
      }
    }
}

TEST_CASE("identity is unbiased because it is exact") {
  auto x = test::any_bits(5000, 1);
  auto const payload = test::encode(compress::identity{}, x);
  std::vector<float> raw(x.size());
  std::memcpy(raw.data(), payload.data(), payload.size());
  CHECK(test::same_bits(raw, x));
}

TEST_CASE_TEMPLATE("a damaged payload throws or stays in bounds", Codec, compress::identity, compress::fp16,
                   compress::bf16, compress::sign, compress::top_k, error_feedback<compress::top_k>) {
  Codec const codec{};
  random_stream const random{77};
  std::uint64_t draw = 0;
  int thrown = 0;
  for (int repeat = 0; repeat < 400; ++repeat) {
    std::size_t const n = random.word(draw++) % 700;
    auto payload = test::encode(codec, test::normal(n, draw));
    // Memory of exactly the right sizes: the address sanitizer sees every step out of bounds.
    std::vector<float> out(n);
    auto const attempt = [&](std::vector<std::byte> const& bytes) {
      std::vector<float> const before = out;
      try {
        codec.decode_add(bytes, out);
      } catch (input_error const&) {
        ++thrown;
        REQUIRE(test::same_bits(out, before));  // all or nothing
      }
      std::fill(out.begin(), out.end(), 0.0f);
    };
    auto shorter = payload, longer = payload;
    longer.push_back(std::byte{1});
    CHECK_THROWS_AS(codec.decode_add(longer, out), input_error);
    if (!payload.empty()) {
      shorter.resize(random.word(draw++) % payload.size());
      CHECK_THROWS_AS(codec.decode_add(shorter, out), input_error);
      for (int flips = 0; flips < 8; ++flips) {
        auto flipped = payload;
        std::uint32_t const bit = random.word(draw++) % static_cast<std::uint32_t>(8 * payload.size());
        flipped[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
        attempt(flipped);
      }
    }
    auto noise = payload;
    for (auto& b : noise) b = static_cast<std::byte>(random.word(draw++));
    attempt(noise);
  }
  bool const some_bits_are_checked = !Codec::summable;  // any bits are a half, or a float
  CHECK((thrown > 0) == some_bits_are_checked);
}

TEST_CASE("errors say what, where, the values and the way out") {
  std::vector<float> const x(100, 1.0f);
  std::vector<float> out(100);
  std::vector<std::byte> bytes(7);
  CHECK_THROWS_WITH_AS(compress::fp16{}.decode_add(bytes, out),
                       "fp16: a payload of 7 bytes for 100 elements, where 200 are written: it is truncated, or ranks "
                       "disagree on the bucket",
                       input_error);
  compress::no_state none;
  CHECK_THROWS_WITH_AS(compress::fp16{}.encode({x, {}}, none, bytes),
                       "fp16: the payload of 100 elements takes 200 bytes, the buffer has 7: size it by wire_size",
                       argument_error);
  CHECK_THROWS_WITH_AS(compress::top_k{.ratio = 0.0f}.init({x, {}}),
                       "top_k: ratio is 0: it must be above 0 and at most 1", argument_error);
  CHECK_THROWS_AS(compress::top_k{.ratio = test::not_a_number}.init({x, {}}), argument_error);
  CHECK_THROWS_AS(compress::top_k{.ratio = 1.5f}.wire_size(5), argument_error);
  CHECK_THROWS_AS(compress::top_k{}.wire_size(std::size_t{1} << 32), argument_error);
  CHECK_THROWS_AS(compress::sign{.block = 8}.init({x, {}}), argument_error);
  CHECK(compress::name_of(error_feedback{compress::top_k{}}) == "error feedback + top-k");
}

}  // namespace compress_codecs
