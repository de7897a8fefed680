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

TEST_CASE("fp16's scale moves small and large gradients into its range, and a power of two changes nothing else") {
  auto x = test::normal(3000, 8);
  auto small = x;
  for (float& v : small) v *= 0x1p-30f;
  std::vector<float> const plain = test::decode(compress::fp16{}, test::encode(compress::fp16{}, x), x.size());
  compress::fp16 const scaled{.scale = 0x1p30f};
  auto back = test::decode(scaled, test::encode(scaled, small), x.size());
  for (float& v : back) v *= 0x1p30f;
  CHECK(test::same_bits(back, plain));
  CHECK(test::decode(compress::fp16{}, test::encode(compress::fp16{}, small), x.size()) != small);
  // The sum over 4 ranks of what one rank can just send.
  std::vector<float> const large(5, 60000.0f);
  compress::fp16 const quarter{.scale = 0.25f};
  auto const sent = test::encode(quarter, large);
  std::vector<dovetail::fp16> sum(5);
  std::memcpy(sum.data(), sent.data(), 10);
  for (auto& v : sum) v = dovetail::fp16(4 * static_cast<float>(v));
  auto const total = test::decode(quarter, std::as_bytes(std::span(sum)), 5);
  for (float const v : total) CHECK(v == doctest::Approx(240000).epsilon(1e-3));
  for (float const wrong : {0.0f, -1.0f, test::infinity, test::not_a_number}) {
    compress::fp16 const refused{.scale = wrong};
    CHECK_THROWS_AS(refused.init({x, {}}), argument_error);
  }
}

TEST_CASE("stochastic bf16: one of the two neighbours, the mean is the number, the same at every cpu_level") {
  compress::stochastic_bf16 const codec;
  std::vector<float> x = test::normal(999, 3);
  x.insert(x.end(), {0.0f, -0.0f, 1.0f, 0x1.fffffep127f, -0x1.fffffep127f, 0x1p-149f});
  std::vector<double> mean(x.size());
  std::vector<std::byte> payload(codec.wire_size(x.size())), other(payload.size());
  int const draws = 4000;
  for (int i = 0; i < draws; ++i) {
    compress::context const where{.step = i, .seed = 5};
    codec.encode({x, {}}, payload, where, compress::quantize::at(cpu_level::baseline));
    codec.encode({x, {}}, other, where, compress::quantize::best());
    REQUIRE(payload == other);
    auto const y = test::decode(codec, payload, x.size());
    for (std::size_t j = 0; j < x.size(); ++j) {
      mean[j] += static_cast<double>(y[j]) / draws;
      if (i == 0 && std::fabs(x[j]) > 1e-30f && std::fabs(x[j]) < 1e30f)
        REQUIRE(std::fabs(y[j] - x[j]) < std::fabs(x[j]) * 0x1p-7f);
      REQUIRE(std::isfinite(y[j]));
    }
  }
  for (std::size_t j = 0; j < 999; ++j) {
    double const step = std::fabs(static_cast<double>(x[j])) * 0x1p-7;  // at least twice the distance of neighbours
    CHECK(std::fabs(mean[j] - static_cast<double>(x[j])) < 5 * step / 2 / std::sqrt(draws) + 1e-12);
  }
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number}) {
    std::vector<float> const y{1, bad};
    codec.encode({y, {}}, std::span(payload).first(4), {}, compress::quantize::best());
    CHECK_FALSE(std::isfinite(test::decode(codec, std::span(payload).first(4), 2)[1]));
  }
}
}  // namespace compress_half
