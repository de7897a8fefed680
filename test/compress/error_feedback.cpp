// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <numeric>
#include <string>

#include <doctest/doctest.h>

namespace compress_error_feedback {

using namespace dovetail;
using compress::error_feedback;

TEST_CASE("with top-k nothing is lost: decoded + residual is input + old residual, bit for bit, for 20 steps") {
  for (std::size_t const n : {std::size_t{1}, std::size_t{9}, std::size_t{1000}, std::size_t{100'003}}) {
    error_feedback const codec{compress::top_k{.ratio = 0.01f}};
    auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
    for (std::uint64_t step = 0; step < 20; ++step) {
      auto const g = test::normal(n, 100 * step + n);
      std::vector<float> expected(n), both(n);
      for (std::size_t i = 0; i < n; ++i) expected[i] = state.residual[i] + g[i];
      auto const payload = test::encode(codec, g, state);
      auto const sent = test::decode(codec, payload, n);
      for (std::size_t i = 0; i < n; ++i) {
        REQUIRE((sent[i] == 0 || state.residual[i] == 0));
        both[i] = sent[i] + state.residual[i];
      }
      REQUIRE(test::same_bits(both, expected));
    }
  }
}

TEST_CASE("the fused pass of top-k sends what an unfused one would") {
  std::size_t const n = 70'001;
  error_feedback const codec{compress::top_k{.ratio = 0.02f}};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  std::vector<float> residual(n);
  for (std::uint64_t step = 0; step < 10; ++step) {
    auto const g = test::normal(n, step);
    for (std::size_t i = 0; i < n; ++i) residual[i] += g[i];
    auto const expected = test::encode(codec.codec, residual);
    REQUIRE(test::encode(codec, g, state) == expected);
    codec.codec.decode_add(expected, residual, -1.0f);
    REQUIRE(test::same_bits(residual, state.residual.span()));
  }
}

TEST_CASE_TEMPLATE("what was sent over many steps is what came in, but for one residual", Codec, compress::sign,
                   compress::fp16, compress::bf16, compress::top_k) {
  std::size_t const n = 2000;
  error_feedback<Codec> const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  std::vector<double> in(n), out(n);
  for (std::uint64_t step = 0; step < 200; ++step) {
    auto g = test::normal(n, step);
    for (std::size_t i = 0; i < n; ++i) in[i] += static_cast<double>(g[i] += 0.1f);
    auto const sent = test::decode(codec, test::encode(codec, g, state), n);
    for (std::size_t i = 0; i < n; ++i) out[i] += static_cast<double>(sent[i]);
  }
  for (std::size_t i = 0; i < n; ++i)
    REQUIRE(in[i] == doctest::Approx(out[i] + static_cast<double>(state.residual[i])).epsilon(1e-3).scale(1));
}

TEST_CASE_TEMPLATE("a non-finite gradient is sent and leaves the residual as it was", Codec, compress::sign,
                   compress::fp16, compress::top_k) {
  std::size_t const n = 5000;
  error_feedback<Codec> const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  test::encode(codec, test::normal(n, 1), state);
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number})
    for (std::size_t const at : {std::size_t{0}, std::size_t{4096}, n - 1}) {
      auto const before = state;
      auto g = test::normal(n, 2);
      g[at] = bad;
      auto const sent = test::decode(codec, test::encode(codec, g, state), n);
      REQUIRE_FALSE(std::isfinite(sent[at]));
      REQUIRE(test::same_bits(state.residual.span(), before.residual.span()));
    }
  auto const after = test::decode(codec, test::encode(codec, test::normal(n, 3), state), n);
  for (float const v : after) REQUIRE(std::isfinite(v));
}

TEST_CASE_TEMPLATE("sums or codecs that overflow are seen once and do not poison the residual", Codec, compress::sign,
                   compress::fp16, compress::top_k) {
  std::size_t const n = 5000;
  error_feedback<Codec> const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  std::vector<float> g = test::normal(n, 1);
  for (std::size_t i = 0; i < n; i += 2) {  // more of them than top-k sends
    state.residual[i] = 0x1.8p127f;
    g[i] = 0x1.8p127f;
  }
  auto const sent = test::decode(codec, test::encode(codec, g, state), n);
  bool seen = false;
  for (float const v : sent) seen |= !std::isfinite(v);
  CHECK(seen);
  for (float const v : state.residual) REQUIRE(std::isfinite(v));
  auto const after = test::decode(codec, test::encode(codec, test::normal(n, 3), state), n);
  for (float const v : after) REQUIRE(std::isfinite(v));
}

TEST_CASE("an element that is never among the largest is sent in the end") {
  std::size_t const n = 1000;
  error_feedback const codec{compress::top_k{.ratio = 0.01f}};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  std::vector<float> g(n, 1.0f), sent(n);
  g[777] = 0.25f;
  int at = -1;
  for (int step = 0; step < 2000 && at < 0; ++step) {
    codec.decode_add(test::encode(codec, g, state), sent);
    if (sent[777] != 0) at = step;
  }
  CHECK(at >= 0);
}

TEST_CASE("state lists the residual by name, then the codec's own, and belongs to one size of bucket") {
  error_feedback const codec{compress::top_k{}};
  std::vector<float> const g(50, 1.0f);
  auto state = codec.init(compress::bucket{g, {}});
  auto const tensors = state.tensors("bucket.0.");
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].name == "bucket.0.residual");
  CHECK(tensors[0].shape == shape{50});
  CHECK(tensors[0].bytes.size() == 200);
  std::vector<float> const other(51, 1.0f);
  CHECK_THROWS_WITH_AS(test::encode(codec, other, state),
                       "error feedback + top-k: a bucket of 51 elements meets a state made for 50: make one state per "
                       "bucket with init",
                       argument_error);
  std::vector<compress::bucket_tensor> const tensors_of{{0, {5, 10}}}, turned{{0, {10, 5}}};
  auto of_tensors = codec.init(compress::bucket{g, tensors_of});
  std::vector<std::byte> room(400);
  CHECK_THROWS_WITH_AS(codec.encode({g, turned}, of_tensors, room),
                       doctest::Contains("tensor 0 of a bucket begins at 0 with shape {10, 5}, the state was made for "
                                         "one at 0 with shape {5, 10}"),
                       argument_error);
  CHECK_THROWS_WITH_AS(codec.encode({g, {}}, of_tensors, room),
                       doctest::Contains("of 0 tensors meets a state made for 1"), argument_error);
  std::vector<std::byte> small(7);
  CHECK_THROWS_AS(codec.encode({g, {}}, state, small), argument_error);
  CHECK(state == codec.init(compress::bucket{g, {}}));  // a refused encode has not touched the residual
}

TEST_CASE_TEMPLATE("what was encoded last can be taken back, to the bit; what was committed cannot", Codec,
                   compress::sign, compress::fp16, compress::bf16, compress::top_k) {
  std::size_t const n = 5000;
  error_feedback<Codec> const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  for (std::uint64_t step = 0; step < 3; ++step) test::encode(codec, test::normal(n, step), state);
  auto const before = state;
  auto const first = test::encode(codec, test::normal(n, 7), state);
  auto const after = state;
  CHECK_FALSE(state == before);
  codec.rollback(state);
  CHECK(test::same_bits(state.residual.span(), before.residual.span()));
  codec.rollback(state);  // there is nothing more to take back
  CHECK(test::same_bits(state.residual.span(), before.residual.span()));
  CHECK(test::encode(codec, test::normal(n, 7), state) == first);
  CHECK(state == after);
  codec.commit(state);
  codec.rollback(state);
  CHECK(state == after);
  auto bad = test::normal(n, 8);
  bad[17] = test::not_a_number;
  test::encode(codec, bad, state);
  CHECK(state == after);
  codec.rollback(state);
  CHECK(state == after);
}

TEST_CASE_TEMPLATE("a sum that overflows restarts at 0 also when it is taken back, or it would overflow for ever",
                   Codec, compress::sign, compress::fp16, compress::top_k) {
  std::size_t const n = 5000;
  error_feedback<Codec> const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  auto g = test::normal(n, 1);
  for (std::size_t i = 0; i < n; i += 2) state.residual[i] = g[i] = 0x1.8p127f;
  for (std::size_t i = 1; i < n; i += 2) state.residual[i] = 0.5f;
  test::encode(codec, g, state);
  codec.rollback(state);
  bool const all = std::is_same_v<Codec, compress::sign>;  // the scale of their block overflows for all of them
  for (std::size_t i = 0; i < n; ++i) REQUIRE(state.residual[i] == (i % 2 && !all ? 0.5f : 0.0f));
}

}  // namespace compress_error_feedback
