// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sparsifiers that keep their own residual and send signs: Strom's threshold and AdaComp.
#include <algorithm>

#include "sparse.hpp"

namespace compress_threshold {

using namespace dovetail;
using compress::adacomp;
using compress::threshold;

static_assert(codec<threshold> && codec<adacomp>);
static_assert(!threshold::contraction && !threshold::wants_error_feedback && !adacomp::wants_error_feedback);

TEST_CASE("threshold sends tau with the sign of what has grown beyond it, and keeps the rest") {
  threshold const codec{.tau = 1};
  std::vector<float> g{0.5f, -1.5f, 1, 3, 0, -0.75f};
  auto state = codec.init({g, {}});
  auto sent = test::decode(codec, test::encode(codec, g, state), 6);
  CHECK(sent == std::vector<float>{0, -1, 0, 1, 0, 0});
  CHECK(std::vector<float>(state.residual.begin(), state.residual.end()) ==
        std::vector<float>{0.5f, -0.5f, 1, 2, 0, -0.75f});
  codec.commit(state);
  g = {0.75f, 0, 0.125f, 0, 0, -0.5f};
  auto const payload = test::encode(codec, g, state);
  sent = test::decode(codec, payload, 6);
  CHECK(sent == std::vector<float>{1, 0, 1, 1, 0, -1});
  CHECK(state.residual[0] == 0.25f);
  CHECK(state.residual[3] == 1);
  // 4 signs behind their number, and a bitmap: 4 + 1 + 1 + 1 bytes.
  CHECK(payload.size() <= 7);
}

TEST_CASE("threshold looks at magnitudes: a tensor of negative numbers does not send all, nor nothing") {
  std::size_t const n = 5000;
  auto g = test::normal(n, 1);
  for (float& v : g) v = -std::fabs(v);
  threshold const codec{.tau = 2};
  auto const sent = test::decode(codec, test::encode(codec, g), n);
  for (std::size_t i = 0; i < n; ++i) REQUIRE(sent[i] == (g[i] < -2 ? -2.0f : 0.0f));
  CHECK(std::count(sent.begin(), sent.end(), -2.0f) > 100);
  threshold const high{.tau = 100};  // nothing to send
  auto const payload = test::encode(high, g);
  CHECK(payload.size() == 4);
  CHECK(test::decode(high, payload, n) == std::vector<float>(n));
}

TEST_CASE(
    "with threshold what was sent and what is kept is what came in, and the residual of small gradients is bounded") {
  std::size_t const n = 3000;
  threshold const codec{.tau = 0.5f};
  for (auto const& in : test::inputs(n)) {
    if (std::string(in.name) == "heavy" || std::string(in.name) == "alternating") continue;  // above tau for ever
    CAPTURE(in.name);
    auto state = codec.init({in.values, {}});
    std::vector<double> owed(n);
    for (int step = 0; step < 50; ++step) {
      auto g = in.values;
      for (float& v : g) v *= 0.1f;
      auto const sent = test::decode(codec, test::encode(codec, g, state), n);
      codec.commit(state);
      for (std::size_t i = 0; i < n; ++i) owed[i] += static_cast<double>(g[i]) - static_cast<double>(sent[i]);
    }
    for (std::size_t i = 0; i < n; ++i) {
      REQUIRE(owed[i] == doctest::Approx(static_cast<double>(state.residual[i])).epsilon(1e-4).scale(1));
      REQUIRE(std::fabs(state.residual[i]) < 1);
    }
  }
}

TEST_CASE("every level sends the same") {
  auto const x = test::normal(20'011, 6);
  std::vector<std::vector<std::byte>> payloads;
  for (int level = 0; level <= static_cast<int>(supported_cpu_level()); ++level) {
    threshold const codec{.tau = 1.5f};
    auto state = codec.init({x, {}});
    for (int step = 0; step < 3; ++step) {
      payloads.emplace_back(codec.wire_size(x.size()));
      payloads.back().resize(
          codec.encode_on({x, {}}, state, payloads.back(), compress::kernels::at(static_cast<cpu_level>(level))));
      CHECK(payloads.back() == payloads[static_cast<std::size_t>(step)]);
    }
  }
}

TEST_CASE("adacomp sends of each bin what would be its largest after one more gradient, as the mean of the largest") {
  adacomp const codec{.bin = 4};
  std::vector<float> const g{1, -2, 0.5f, 0.9f, 0, 0, 0, 0, 4, -3, 1, 0, -6};
  std::vector<compress::bucket_tensor> const tensors{{0, {3, 4}}, {12, {1}}};
  compress::bucket const b{g, tensors};
  auto state = codec.init(b);
  auto const sent = test::decode(codec, test::encode_in(codec, b, state, {}), 13);
  // H = 2 g: of bins with largest |G| of 2, 0, 4 the elements with |2g| of 2 or more, none, of 4 or more; the mean
  // is 2.
  CHECK(sent == std::vector<float>{2, -2, 0, 0, 0, 0, 0, 0, 2, -2, 0, 0, -6});
  CHECK(std::vector<float>(state.residual.begin(), state.residual.end()) ==
        std::vector<float>{-1, 0, 0.5f, 0.9f, 0, 0, 0, 0, 2, -1, 1, 0, 0});
}

TEST_CASE("adacomp comes to send 1 to 2 % of noise at bins of 500, and what it keeps is what was not sent") {
  std::size_t const n = 50'000;
  adacomp const codec{};
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  std::vector<double> owed(n);
  double last = 0, bits = 0;
  int const steps = 100;
  for (int step = 0; step < steps; ++step) {
    auto const g = test::normal(n, static_cast<std::uint64_t>(step));
    auto const payload = test::encode(codec, g, state);
    auto const sent = test::decode(codec, payload, n);
    codec.commit(state);
    for (std::size_t i = 0; i < n; ++i) owed[i] += static_cast<double>(g[i]) - static_cast<double>(sent[i]);
    auto const count = static_cast<double>(std::count_if(sent.begin(), sent.end(), [](float v) { return v != 0; }));
    double const part = count / static_cast<double>(n);
    if (step == 0) CHECK(part == doctest::Approx(0.11).epsilon(0.2));  // all above half of their bin's largest
    if (step < steps / 2) continue;
    last += part / (steps / 2);
    bits += 8 * static_cast<double>(payload.size()) / count / (steps / 2);
  }
  MESSAGE("sent ", 100 * last, " % in ", bits, " bits each");
  CHECK(last > 0.01);
  CHECK(last < 0.02);
  CHECK(bits < 9.5);
  for (std::size_t i = 0; i < n; ++i)
    REQUIRE(owed[i] == doctest::Approx(static_cast<double>(state.residual[i])).epsilon(1e-4).scale(1));
}

TEST_CASE_TEMPLATE("gradients that are not finite are seen in every element and leave the residual as it was", Codec,
                   threshold, adacomp) {
  for (std::size_t const n : {std::size_t{1}, std::size_t{5001}}) {
    Codec const codec{};
    auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
    test::encode(codec, test::normal(n, 1), state);
    codec.commit(state);
    for (float const bad : {test::infinity, -test::infinity, test::not_a_number}) {
      auto const before = state;
      auto g = test::normal(n, 2);
      g[n / 2] = bad;
      auto const payload = test::encode(codec, g, state);
      CHECK(payload.size() == 4);
      for (float const v : test::decode(codec, payload, n)) REQUIRE(std::isnan(v));
      CHECK(test::same_bits(state.residual.span(), before.residual.span()));
    }
    // Sums that overflow are seen once.
    state.residual[n / 2] = 0x1.8p127f;
    auto g = std::vector<float>(n);
    g[n / 2] = 0x1.8p127f;
    CHECK(std::isnan(test::decode(codec, test::encode(codec, g, state), n)[0]));
    CHECK(state.residual[n / 2] == 0);
    for (float const v : test::decode(codec, test::encode(codec, g, state), n)) REQUIRE(std::isfinite(v));
  }
}

TEST_CASE_TEMPLATE("steps are taken back to the bit; zeros, denormals, one element and none are legal", Codec,
                   threshold, adacomp) {
  Codec const codec{};
  std::size_t const n = 2001;
  auto state = codec.init(compress::bucket{std::vector<float>(n), {}});
  test::encode(codec, test::normal(n, 1), state);
  codec.commit(state);
  auto const before = state;
  auto const payload = test::encode(codec, test::normal(n, 2), state);
  CHECK_FALSE(state == before);
  codec.rollback(state);
  CHECK(test::same_bits(state.residual.span(), before.residual.span()));
  CHECK(test::encode(codec, test::normal(n, 2), state) == payload);
  for (std::size_t const size : {std::size_t{0}, std::size_t{1}, std::size_t{7}}) {
    auto const zeros = test::encode(codec, std::vector<float>(size));
    CHECK(test::decode(codec, zeros, size) == std::vector<float>(size));
    CHECK(zeros.size() <= 16);
    for (float const v : test::decode(codec, test::encode(codec, std::vector<float>(size, 1e-42f)), size))
      CHECK(std::fabs(v) <= 1e-3f);
  }
  CHECK_THROWS_AS(test::encode(codec, test::normal(n + 1, 2), state), argument_error);
}

TEST_CASE_TEMPLATE("damaged payloads change nothing", Codec, threshold, adacomp) {
  test::damage(Codec{}, test::normal(500, 3));
  test::damage(Codec{}, test::normal(17, 3));
}

TEST_CASE_TEMPLATE("ranks hold the same sums, and a state goes on where it was saved", Codec, threshold, adacomp) {
  test::sums_of_ranks(Codec{});
  test::restart(Codec{}, 999);
}

TEST_CASE("hyperparameters out of range are refused") {
  for (float const tau : {0.0f, -1.0f, test::infinity, test::not_a_number})
    CHECK_THROWS_AS(static_cast<void>(threshold{.tau = tau}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(adacomp{.bin = 0}.wire_size(5)), argument_error);
}

}  // namespace compress_threshold
