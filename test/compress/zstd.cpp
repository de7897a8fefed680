// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>

#include <doctest/doctest.h>
#include <dovetail/compress/zstd.hpp>

namespace compress_zstd {

using namespace dovetail;
using compress::error_feedback;

template <class Codec>
std::vector<std::byte> encoded(Codec const& codec, std::vector<float> const& x, compress::context const& where = {}) {
  compress::bucket const b{x, {}};
  auto state = compress::init(codec, b, where);
  std::vector<std::byte> payload(compress::wire_size(codec, b));
  payload.resize(compress::encode(codec, b, state, payload, where));
  return payload;
}
template <class Codec>
std::vector<float> decoded(Codec const& codec, std::vector<std::byte> const& payload, std::size_t n) {
  std::vector<float> out(n);
  codec.decode_add(payload, out, 1.0f, {});
  return out;
}

static_assert(codec<compress::zstd<compress::qsgd>> && codec<error_feedback<compress::zstd<compress::three_lc>>>);
static_assert(compress::zstd<compress::qsgd>::unbiased && !compress::zstd<compress::int8>::unbiased);

TEST_CASE("nothing more is lost, and what is unevenly frequent takes fewer bytes") {
  auto const x = test::normal(100'000, 1);
  compress::context const where{.seed = 3};
  auto const same = [&](auto const& codec, double at_most) {
    compress::zstd const packed{codec};
    auto const plain = encoded(codec, x, where), small = encoded(packed, x, where);
    CHECK(static_cast<double>(small.size()) < at_most * static_cast<double>(plain.size()));
    CHECK(small.size() <= packed.wire_size(x.size()));
    std::vector<float> expected(x.size());
    codec.decode_add(plain, expected, 1.0f);
    CHECK(test::same_bits(decoded(packed, small, x.size()), expected));
  };
  same(compress::qsgd{.levels = 1}, 0.4);
  same(compress::three_lc{}, 0.8);
  same(compress::terngrad{}, 0.9);
  same(compress::natural{}, 0.9);
  same(compress::int8{}, 1.001);
}
TEST_CASE("what does not become shorter is sent as it is") {
  auto const x = test::any_bits(1000, 2);
  auto const payload = encoded(compress::zstd{compress::identity{}}, x);
  CHECK(payload.size() == 4001);
  CHECK(payload[0] == std::byte{0});
  for (std::size_t const n : {0, 1, 2, 31}) {
    auto const y = test::normal(n, n);
    CHECK(decoded(compress::zstd{compress::identity{}}, encoded(compress::zstd{compress::identity{}}, y), n) == y);
  }
}
TEST_CASE("damaged payloads are refused, or are other numbers; out stays as it is when they are refused") {
  compress::zstd const codec{compress::three_lc{}};
  auto x = test::normal(5000, 4);
  auto const payload = encoded(codec, x);
  REQUIRE(payload[0] == std::byte{1});
  random_stream const random{3};
  int refused = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    auto bad = payload;
    auto const kind = random.word(3 * i) % 3;
    if (kind == 0) bad.resize(random.word(3 * i + 1) % bad.size());
    if (kind == 1) bad[random.word(3 * i + 1) % bad.size()] ^= static_cast<std::byte>(1u << random.word(3 * i + 2) % 8);
    if (kind == 2)
      for (std::size_t j = 1; j < bad.size(); ++j) bad[j] = static_cast<std::byte>(random.word(7 * i + j));
    std::vector<float> out(5000, 2.0f);
    try {
      codec.decode_add(bad, out, 1.0f, {});
    } catch (input_error const&) {
      ++refused;
      REQUIRE(std::all_of(out.begin(), out.end(), [](float v) { return !(v < 2 || v > 2); }));
    }
  }
  CHECK(refused > 2000);
  compress::zstd const wrong{compress::three_lc{}, 23};
  CHECK_THROWS_AS(wrong.init({x, {}}), argument_error);
}

TEST_CASE("codecs that send more than their elements take in one piece have room, and come back") {
  auto const check = [](auto const& inner) {
    compress::zstd const codec{inner};
    std::size_t const n = 4096;
    auto const x = test::normal(n, 9);
    std::vector<compress::bucket_tensor> vectors;
    for (std::size_t at = 0; at < n; at += 16) vectors.push_back({at, {16}});
    for (auto const& tensors : {vectors, std::vector<compress::bucket_tensor>{{0, {4096}}}}) {
      compress::bucket const b{x, tensors};
      auto state = codec.init(b);
      std::vector<std::byte> payload(codec.wire_size(b));
      CHECK(payload.size() == 1 + compress::wire_size(inner, b));
      payload.resize(codec.encode(b, state, payload, {}));
      auto plain = compress::init(inner, b, {});
      std::vector<std::byte> expected(compress::wire_size(inner, b));
      expected.resize(compress::encode(inner, b, plain, expected, {}));
      std::vector<float> want(n);
      compress::decode_add(inner, expected, want, 1.0f, plain, {});
      CHECK(decoded(codec, payload, n) == want);
      auto copy = state;  // with scratch memory of its own
      state = codec.init(b);
      std::vector<std::byte> again(codec.wire_size(b));
      CHECK_NOTHROW(codec.encode(b, copy, again, {.step = 1}));
    }
  };
  check(compress::dgc{});
  check(compress::adacomp{});
}

}  // namespace compress_zstd
