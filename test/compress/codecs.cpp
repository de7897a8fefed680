// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

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

TEST_CASE("identity is unbiased because it is exact") {
  auto x = test::any_bits(5000, 1);
  auto const payload = test::encode(compress::identity{}, x);
  std::vector<float> raw(x.size());
  std::memcpy(raw.data(), payload.data(), payload.size());
  CHECK(test::same_bits(raw, x));
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
