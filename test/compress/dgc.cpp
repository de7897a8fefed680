// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <numeric>

#include "sparse.hpp"

namespace compress_dgc {

using namespace dovetail;
using compress::dgc;

static_assert(codec<dgc> && !dgc::fixed_size && !dgc::wants_error_feedback && !dgc::contraction);

TEST_CASE("momentum, accumulation and masking are those of the paper") {
  for (bool const nesterov : {false, true}) {
    std::size_t const n = 60;
    dgc const codec{.ratio = 0.1f, .momentum = 0.5f, .nesterov = nesterov};
    std::vector<compress::bucket_tensor> const tensors{{0, {5, 10}}, {50, {10}}};  // a matrix and a bias
    std::vector<float> g(n), u(n), v(n);
    auto state = codec.init({g, tensors});
    for (int step = 0; step < 20; ++step) {
      g = test::normal(n, static_cast<std::uint64_t>(step));
      auto const sent =
          test::decode(codec, test::encode_in(codec, compress::bucket{g, tensors}, state, {.step = step}), n);
      codec.commit(state);
      for (std::size_t i = 0; i < n; ++i) {
        u[i] = nesterov ? 0.5f * (u[i] + g[i]) : 0.5f * u[i] + g[i];
        v[i] += nesterov ? u[i] + g[i] : u[i];
      }
      std::vector<std::size_t> order(50);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return std::fabs(v[a]) > std::fabs(v[b]); });
      std::vector<float> expected(n);
      for (std::size_t i = 0; i < 5; ++i) {  // 10 % of the matrix
        expected[order[i]] = v[order[i]];
        u[order[i]] = v[order[i]] = 0;  // both: momentum factor masking
      }
      for (std::size_t i = 50; i < n; ++i) expected[i] = std::exchange(v[i], 0.0f);  // all of the bias, whose u stays
      REQUIRE(test::same_bits(sent, expected));
      REQUIRE(test::same_bits(state.momentum.span(), u));
      REQUIRE(test::same_bits(state.unsent.span(), v));
    }
  }
}

TEST_CASE("gradients are clipped by their norm over sqrt(ranks), not element by element") {
  std::vector<float> g(100);
  g[3] = 30;
  g[50] = -40;  // a norm of 50
  g[60] = 1e-3f;
  dgc const codec{.ratio = 1, .momentum = 0.5f, .clip = 10};
  compress::context const where{.ranks = 4};
  auto const sent = test::decode_in(codec, test::encode_in(codec, g, where), 100, where);
  CHECK(sent[3] == doctest::Approx(3));  // 10 / sqrt(4) / 50 = 0.1 of it: the direction stays
  CHECK(sent[50] == doctest::Approx(-4));
  CHECK(sent[60] == doctest::Approx(1e-4));
  for (auto& x : g) x *= 0.09f;  // a norm below: nothing changes
  CHECK(test::decode_in(codec, test::encode_in(codec, g, where), 100, where) == g);
}

TEST_CASE("in the warm-up a quarter is sent, then a quarter of that, and so on") {
  dgc const codec{.ratio = 0.001f, .warmup = 40};
  CHECK(codec.density(0) == 0.25f);
  CHECK(codec.density(9) == 0.25f);
  CHECK(codec.density(10) == 0.0625f);
  CHECK(codec.density(25) == 0.015625f);
  CHECK(codec.density(39) == 0.00390625f);
  CHECK(codec.density(40) == 0.001f);
  CHECK(dgc{.ratio = 0.1f, .warmup = 40}.density(39) == 0.1f);
  CHECK(dgc{}.density(0) == 0.001f);
  CHECK(dgc{.ratio = 0.001f, .warmup = 3}.density(2) == 0.015625f);
  std::size_t const n = 10'000;
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  for (auto const& [step, count] :
       std::vector<std::pair<int, std::size_t>>{{0, 2500}, {10, 625}, {25, 157}, {39, 40}, {99, 10}}) {
    auto const g = test::normal(n, static_cast<std::uint64_t>(step));
    auto const payload = test::encode_in(codec, {g, {}}, state, {.step = step});
    codec.commit(state);
    auto const sent = test::decode(codec, payload, n);
    CHECK(static_cast<std::size_t>(std::count_if(sent.begin(), sent.end(), [](float x) { return x != 0; })) == count);
    CHECK(payload.size() <= codec.wire_size(n));
  }
}

TEST_CASE("without momentum it is error feedback around top-k") {
  std::size_t const n = 5000;
  dgc const codec{.ratio = 0.01f, .momentum = 0};
  compress::error_feedback const other{compress::top_k{.ratio = 0.01f}};
  compress::bucket const empty{std::vector<float>(n), {}};
  auto state = codec.init(empty);
  auto memory = other.init(empty);
  for (std::uint64_t step = 0; step < 10; ++step) {
    auto const g = test::normal(n, step);
    auto const a = test::decode(codec, test::encode_in(codec, {g, {}}, state, {}), n);
    auto const b = test::decode(other, test::encode(other, g, memory), n);
    REQUIRE(test::same_bits(a, b));
    REQUIRE(test::same_bits(state.unsent.span(), memory.residual.span()));
  }
}

TEST_CASE("what is not finite is seen in every element and leaves the state as it was; what overflows begins again") {
  std::size_t const n = 3000;
  dgc const codec{.ratio = 0.01f};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  auto g = test::normal(n, 1);
  test::encode_in(codec, {g, {}}, state, {});
  codec.commit(state);
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number}) {
    auto const before = state;
    auto x = g;
    x[1234] = bad;
    auto const payload = test::encode_in(codec, {x, {}}, state, {});
    CHECK(payload.size() == 4);
    for (float const v : test::decode(codec, payload, n)) REQUIRE(std::isnan(v));
    CHECK(state == before);
  }
  state.unsent[7] = 0x1.8p127f;
  auto x = std::vector<float>(n);
  x[7] = 0x1.8p127f;
  CHECK(std::isnan(test::decode(codec, test::encode_in(codec, {x, {}}, state, {}), n)[0]));
  CHECK(state.unsent[7] == 0);
  for (float const v : test::decode(codec, test::encode_in(codec, {g, {}}, state, {}), n)) REQUIRE(std::isfinite(v));
}

TEST_CASE("steps are taken back to the bit, and a state goes on where it was saved") {
  std::size_t const n = 2001;
  dgc const codec{.ratio = 0.02f, .clip = 5, .warmup = 8};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  auto const g = test::normal(n, 1), h = test::normal(n, 2);
  test::encode_in(codec, {g, {}}, state, {});
  codec.commit(state);
  auto const before = state;
  auto const payload = test::encode_in(codec, {h, {}}, state, {.step = 1});
  CHECK_FALSE(state == before);
  codec.rollback(state);
  CHECK(state == before);
  CHECK(test::encode_in(codec, {h, {}}, state, {.step = 1}) == payload);
  test::restart(codec, n);
  std::vector<compress::bucket_tensor> const other{{0, {3, 667}}};
  CHECK_THROWS_AS(test::encode_in(codec, {h, other}, state, {}), argument_error);
}

TEST_CASE("empty buckets, one element and zeros are legal") {
  for (std::size_t const n : {std::size_t{0}, std::size_t{1}, std::size_t{9}}) {
    std::vector<float> const zeros(n);
    CHECK(test::decode(dgc{}, test::encode_in(dgc{}, zeros, {}), n) == zeros);
  }
  CHECK_THROWS_AS(static_cast<void>(dgc{.momentum = 1}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(dgc{.clip = -1}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(dgc{.warmup = -1}.wire_size(5)), argument_error);
}

TEST_CASE("damaged payloads change nothing") {
  test::damage(dgc{.ratio = 0.05f}, test::normal(700, 3));
  // with whole pieces
  std::size_t const n = 200;
  std::vector<compress::bucket_tensor> const tensors{{0, {10}}, {10, {17, 10}}, {180, {20}}};
  auto const g = test::normal(n, 5);
  dgc const codec{.ratio = 0.05f};
  auto state = codec.init({g, tensors});
  auto const good = test::encode_in(codec, {g, tensors}, state, {});
  random_stream const random{3};
  for (std::uint64_t t = 0; t < 5000; ++t) {
    auto bad = good;
    bad[random.word(2 * t) % (t % 2 ? 24 : bad.size())] ^= static_cast<std::byte>(1u << (random.word(2 * t + 1) % 8));
    std::vector<float> out(n, 0.5f);
    try {
      codec.decode_add(bad, out);
    } catch (input_error const&) {
      REQUIRE(out == std::vector<float>(n, 0.5f));
    }
  }
}

TEST_CASE("ranks hold the same sums, and bytes are at most those predicted") {
  test::sums_of_ranks(dgc{.ratio = 0.05f, .clip = 3});
  test::sums_of_ranks(dgc{.ratio = 0.01f, .warmup = 2, .nesterov = true});
}

}  // namespace compress_dgc
