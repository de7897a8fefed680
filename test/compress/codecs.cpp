// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>
#include <string>

#include <doctest/doctest.h>

using namespace dovetail;
using compress::error_feedback;

static_assert(codec<compress::identity> && codec<compress::fp16> && codec<compress::bf16> && codec<compress::sign> &&
              codec<compress::top_k> && codec<error_feedback<compress::top_k>> && codec<error_feedback<compress::sign>> &&
              codec<error_feedback<compress::fp16>> && codec<error_feedback<compress::identity>>);
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
