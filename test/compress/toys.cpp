// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Codecs that somebody else could write: the concept must have room for several rounds and for variable size.
#include "tools.hpp"

#include <cstring>
#include <string>

#include <doctest/doctest.h>

namespace compress_toys {

using namespace dovetail;

namespace {

// Ranks first agree on a scale (the sum of their mean magnitudes), then send signs that may be added on the wire.
struct agreed_scale {
  static constexpr bool summable = true, fixed_size = true, unbiased = false, wants_error_feedback = true;
  static constexpr int rounds = 2;
  using wire_type = float;
  struct state {
    float scale = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) {
      return {make_named_tensor(prefix + "scale", scale)};
    }
    friend bool operator==(state const&, state const&) = default;
  };

  constexpr std::size_t wire_size(std::size_t n) const { return 4 * n; }
  constexpr std::size_t wire_size(compress::bucket const& b, int round) const { return round == 0 ? 4 : 4 * b.size(); }
  state init(compress::bucket const&) const { return {}; }

  std::size_t encode(compress::bucket const& b, state& s, std::span<std::byte> out,
                     compress::context const& where) const {
    int const round = where.round;
    float sum = 0;
    for (float const x : b.values) sum += std::fabs(x) / static_cast<float>(b.size());
    if (round == 0)
      std::memcpy(out.data(), &sum, 4);
    else
      for (std::size_t i = 0; i < b.size(); ++i) {
        float const v = std::copysign(s.scale, b.values[i]);
        std::memcpy(out.data() + 4 * i, &v, 4);
      }
    return wire_size(b, round);
  }
  void absorb(std::span<std::byte const> payload, state& s, compress::context const& where) const {
    if (where.round == 0) std::memcpy(&s.scale, payload.data(), 4);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    compress::identity{}.decode_add(payload, out, weight);
  }
};

// Sends what is larger than a constant: as much or as little as there is.
struct threshold {
  float bound = 1;
  static constexpr bool summable = false, fixed_size = false, unbiased = false, wants_error_feedback = true;
  static constexpr bool contraction = true;  // as long as something passes the bound
  constexpr std::size_t wire_size(std::size_t n) const { return 8 * n; }
  compress::no_state init(compress::bucket const&) const { return {}; }

  std::size_t encode(compress::bucket const& b, compress::no_state&, std::span<std::byte> out) const {
    std::size_t bytes = 0;
    for (std::uint32_t i = 0; i < b.size(); ++i)
      if (!(std::fabs(b.values[i]) < bound)) {
        std::memcpy(out.data() + bytes, &i, 4);
        std::memcpy(out.data() + bytes + 4, &b.values[i], 4);
        bytes += 8;
      }
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    require<input_error>(payload.size() % 8 == 0, "threshold: a payload of ", payload.size(), " bytes");
    for (std::size_t at = 0; at < payload.size(); at += 8) {
      std::uint32_t i;
      float v;
      std::memcpy(&i, payload.data() + at, 4);
      std::memcpy(&v, payload.data() + at + 4, 4);
      require<input_error>(i < out.size(), "threshold: index ", i, " of ", out.size());
      out[i] += weight * v;
    }
  }
};

static_assert(codec<agreed_scale> && codec<threshold> && codec<compress::error_feedback<threshold>>);
static_assert(compress::rounds_of<agreed_scale> == 2 && compress::rounds_of<threshold> == 1);
static_assert(!compress::error_feedback<threshold>::fixed_size);

}  // namespace

TEST_CASE("a codec of two rounds agrees on a scale first and sends sums second") {
  std::vector<float> const a{1, -1, 2, -2}, b{3, -3, -3, 3};
  agreed_scale const codec;
  compress::bucket const ba{a, {}}, bb{b, {}};
  auto sa = codec.init(ba), sb = codec.init(bb);
  CHECK(compress::wire_size(codec, ba, 0) == 4);
  CHECK(compress::wire_size(codec, ba, 1) == 16);
  std::vector<float> first(1), mine(1), sum(4), next(4);
  codec.encode(ba, sa, std::as_writable_bytes(std::span(first)), {.round = 0});
  codec.encode(bb, sb, std::as_writable_bytes(std::span(mine)), {.round = 0});
  first[0] += mine[0];  // what an all-reduce does
  codec.absorb(std::as_bytes(std::span(first)), sa, {.round = 0});
  codec.absorb(std::as_bytes(std::span(first)), sb, {.round = 0});
  CHECK(sa == sb);
  codec.encode(ba, sa, std::as_writable_bytes(std::span(sum)), {.round = 1});
  codec.encode(bb, sb, std::as_writable_bytes(std::span(next)), {.round = 1});
  for (std::size_t i = 0; i < 4; ++i) sum[i] += next[i];
  std::vector<float> out(4);
  codec.decode_add(std::as_bytes(std::span(sum)), out, 0.5f);
  CHECK(out == std::vector<float>{4.5f, -4.5f, 0, 0});
}

TEST_CASE("a codec of variable size works under error feedback and conserves bit for bit") {
  compress::error_feedback const codec{threshold{.bound = 1.5f}};
  std::vector<float> residual(1000);
  auto state = codec.init(compress::bucket{residual, {}});
  for (std::uint64_t step = 0; step < 20; ++step) {
    auto const g = test::normal(1000, step);
    std::vector<float> expected(1000);
    for (std::size_t i = 0; i < 1000; ++i) expected[i] = state.residual[i] + g[i];
    auto const payload = test::encode(codec, g, state);
    CHECK(payload.size() < codec.wire_size(1000));
    auto sum = test::decode(codec, payload, 1000);
    for (std::size_t i = 0; i < 1000; ++i) sum[i] += state.residual[i];
    CHECK(test::same_bits(sum, expected));
  }
}

}  // namespace compress_toys
