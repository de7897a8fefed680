// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <cstring>

#include <doctest/doctest.h>

namespace compress_half {

using namespace dovetail;

TEST_CASE_TEMPLATE("a half codec is the conversion of its wire type, element by element", Codec, compress::fp16,
                   compress::bf16) {
  auto const x = test::any_bits(100003, 4);
  auto const payload = test::encode(Codec{}, x);
  auto const out = test::decode(Codec{}, payload, x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    typename Codec::wire_type sent;
    std::memcpy(&sent, payload.data() + 2 * i, 2);
    REQUIRE(sent == typename Codec::wire_type(x[i]));
    float const expected = static_cast<float>(sent);
    REQUIRE((out[i] == expected || (std::isnan(out[i]) && std::isnan(expected))));
  }
}

TEST_CASE("fp16 overflows to infinity and bf16 does not") {
  std::vector<float> const x{65504, 65520, -1e30f, 1e-30f};
  auto const h = test::decode(compress::fp16{}, test::encode(compress::fp16{}, x), 4);
  CHECK(h == std::vector<float>{65504, test::infinity, -test::infinity, 0});
  auto const b = test::decode(compress::bf16{}, test::encode(compress::bf16{}, x), 4);
  CHECK(b[2] == doctest::Approx(-1e30f).epsilon(0.01));
}

TEST_CASE("payloads that were added on the wire decode to the sum") {
  std::vector<float> const a{1, 2, -3}, b{0.5f, 0.25f, 8};
  auto p = test::encode(compress::bf16{}, a);
  auto const q = test::encode(compress::bf16{}, b);
  for (std::size_t i = 0; i < 3; ++i) {
    bf16 u, v;
    std::memcpy(&u, p.data() + 2 * i, 2);
    std::memcpy(&v, q.data() + 2 * i, 2);
    bf16 const sum(static_cast<float>(u) + static_cast<float>(v));
    std::memcpy(p.data() + 2 * i, &sum, 2);
  }
  CHECK(test::decode(compress::bf16{}, p, 3) == std::vector<float>{1.5f, 2.25f, 5});
}

}  // namespace compress_half
