// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Built with -Ofast, as llm.c builds itself: whatever decides by a NaN or an infinity must still see it.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/flatten.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/loss_scale.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/sam.hpp>
#include <dovetail/optim/schedules/plateau.hpp>
#include <dovetail/optim/second_order/hessian_free.hpp>
#include <dovetail/optim/second_order/lbfgs.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

#if !defined(__FAST_MATH__) || !defined(__FINITE_MATH_ONLY__) || __FINITE_MATH_ONLY__ == 0
#error "this test is about flags that it was not built with"
#endif

using namespace dovetail;

namespace {

/// From memory that the compiler cannot see through.
float opaque(std::uint32_t bits) {
  std::uint32_t volatile v = bits;
  return std::bit_cast<float>(std::uint32_t{v});
}
double opaque(std::uint64_t bits) {
  std::uint64_t volatile v = bits;
  return std::bit_cast<double>(std::uint64_t{v});
}
std::vector<float> bad_floats() {
  std::vector<float> all;
  for (std::uint32_t const bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu})
    all.push_back(opaque(bits));
  return all;
}
std::vector<double> bad_doubles() {
  std::vector<double> all;
  for (std::uint64_t const bits : {0x7ff0000000000000u, 0xfff0000000000000u, 0x7ff8000000000000u, 0xffffffffffffffffu})
    all.push_back(opaque(bits));
  return all;
}
bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A rule that looks first: skipped, and nothing has changed, wherever the bad element is.
template <class Rule>
void skips(Rule const& rule) {
  arena a({{"a", {3}}, {"b", {5, 1031}}});
  for (std::size_t i = 0; i < a.weights().size(); ++i) a.weights()[i] = 0.01f * static_cast<float>(i % 97) + 0.1f;
  std::vector<float> const weights(a.weights().begin(), a.weights().end());
  auto state = rule.init(a.parameters());
  auto const before = state;
  int skipped = 0, wanted = 0;
  for (float const bad : bad_floats())
    for (std::size_t const at :
         {std::size_t{0}, std::size_t{2}, std::size_t{3}, std::size_t{2000}, a.weights().size() - 1}) {
      for (float& g : a.gradients()) g = 0.5f;
      a.gradients()[at] = bad;
      skipped += rule.step(a.parameters(), state, {.loss = 1.0}).skipped;
      ++wanted;
    }
  CHECK(skipped == wanted);
  CHECK(same_bits(a.weights(), weights));
  CHECK(state == before);
  for (float& g : a.gradients()) g = 0.5f;
  CHECK(!rule.step(a.parameters(), state, {.loss = 1.0}).skipped);
}

}  // namespace

TEST_CASE("finite is what the bits say, of numbers of every size and of what arithmetic makes of them") {
  for (float const x : bad_floats()) CHECK(!is_finite(x));
  for (double const x : bad_doubles()) CHECK(!is_finite(x));
  CHECK(!is_nan(opaque(0x7f800000u)));
  CHECK(is_nan(opaque(0x7f800001u)));
  CHECK(is_nan(opaque(std::uint64_t{0xfff8000000000000u})));
  CHECK(is_finite(opaque(0x7f7fffffu)));
  CHECK(is_finite(opaque(std::uint64_t{1})));
  CHECK(!is_finite(fp16(opaque(0x7f800000u))));
  CHECK(is_nan(fp16(opaque(0x7fc00000u))));
  CHECK(!is_finite(bf16(opaque(0xff800000u))));
  CHECK(is_nan(bf16(opaque(0x7f800001u))));
  CHECK(is_finite(fp16(65504.0f)));
  double const huge = opaque(std::bit_cast<std::uint64_t>(1e200));
  CHECK(!is_finite(huge * huge));
  CHECK(!is_finite(static_cast<float>(huge)));
  CHECK(is_nan(opaque(0x7f800000u) - opaque(0x7f800000u)));
  std::vector<float> many(1000, 1.0f);
  CHECK(all_finite(many));
  for (std::size_t const at : std::vector<std::size_t>{0, 15, 16, 500, 999})
    for (float const bad : bad_floats()) {
      many.assign(1000, 1.0f);
      many[at] = bad;
      CHECK(!all_finite(many));
    }
  float const powers[]{simd::pow(opaque(0x7fc00000u), 0.3f), simd::pow(2.0f, 0.5f)};
  CHECK(is_nan(powers[0]));
}

TEST_CASE("a gradient that is not finite skips the step") {
  skips(optim::chain{optim::skip_non_finite{}, optim::adamw{}});
  skips(optim::chain{optim::skip_non_finite{}, optim::clip_by_value{}, optim::sgd{}});
  skips(optim::chain{optim::clip_by_global_norm{1}, optim::adam{}});
  skips(optim::lars{});
  skips(optim::polyak_sgd{});
  skips(optim::low_precision_state{optim::chain{optim::skip_non_finite{}, optim::adamw{}}, optim::blockwise_8bit{}});
  skips(optim::stochastic_lbfgs{.history = 2, .interval = 1});
}

TEST_CASE("a loss or a rate that is not finite is seen") {
  arena a({{"w", {3}}});
  a.gradients()[0] = 1;
  optim::polyak_sgd const rule{};
  auto state = rule.init(a.parameters());
  for (double const bad : bad_doubles()) CHECK(rule.step(a.parameters(), state, {.loss = bad}).skipped);
  for (float const bad : bad_floats()) {
    CHECK_THROWS_AS(optim::sgd{.lr = bad}.init(a.parameters()), argument_error);
    optim::sgd const varying{.lr = [bad](std::int64_t) { return bad; }};
    auto s = varying.init(a.parameters());
    CHECK_THROWS_AS(varying.step(a.parameters(), s), argument_error);
    CHECK_THROWS_AS(optim::adam{.beta1 = bad}.init(a.parameters()), argument_error);
    CHECK_THROWS_AS(optim::adam{.epsilon = bad}.init(a.parameters()), argument_error);
    CHECK_THROWS_AS(compress::top_k{bad}.wire_size(10), argument_error);
  }
  for (float const w : a.weights()) CHECK(w == 0);
}

TEST_CASE("a loss scale backs off, and gives up in the end") {
  optim::chain const rule{optim::skip_non_finite{}, optim::adamw{}};
  arena a({{"w", {40}}});
  auto state = rule.init(a.parameters());
  optim::loss_scale scale;
  a.gradients()[7] = opaque(0x7f800000u);
  CHECK(scale.update(rule.step(a.parameters(), state, scale.undo())));
  CHECK(scale.value() == 32768);
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i < 200; ++i) scale.update(rule.step(a.parameters(), state, scale.undo()));
      }(),
      numeric_error);
  for (double const bad : bad_doubles()) CHECK_THROWS_AS(optim::loss_scale({.initial = bad}), argument_error);
}

TEST_CASE("a plateau takes a NaN for no progress, infinity for the worst") {
  optim::reduce_on_plateau rate{{.initial = 1, .factor = 0.5f, .patience = 0}};
  CHECK(!rate.observe(1));
  CHECK(rate.observe(opaque(std::uint64_t{0x7ff8000000000000u})));
  CHECK(rate.observe(opaque(std::uint64_t{0x7ff0000000000000u})));
  CHECK(!rate.observe(0.5));
  optim::reduce_on_plateau other{{.initial = 1, .factor = 0.5f, .patience = 0}};
  CHECK(other.observe(opaque(std::uint64_t{0x7ff0000000000000u})));
  CHECK(!other.observe(1e300));
}

TEST_CASE("codecs show what is not finite to every rank, and do not throw at it") {
  auto const shows = [](auto const& codec) {
    for (float const bad : bad_floats()) {
      std::vector<float> x(300, 0.25f), out(300);
      x[123] = bad;
      compress::bucket_tensor const matrix{0, {20, 15}};
      compress::bucket const b{x, {&matrix, 1}};
      compress::context const where{.step = 1, .seed = 2};
      auto state = compress::init(codec, b, where);
      std::vector<std::byte> payload(compress::wire_size(codec, b));
      auto const n = compress::encode(codec, b, state, payload, where);
      compress::decode_add(codec, std::span<std::byte const>(payload).first(n), out, 1, state, where);
      CAPTURE(compress::name_of(codec));
      CHECK(!all_finite(out));
    }
  };
  shows(compress::identity{});
  shows(compress::fp16{});
  shows(compress::bf16{});
  shows(compress::sign{});
  shows(compress::sign{.block = 16});
  shows(compress::top_k{0.01f});
  shows(compress::packed_top_k{0.01f});
  shows(compress::chunked_top_k{0.01f});
  shows(compress::sampled_top_k{0.01f});
  shows(compress::random_k{0.01f});
  shows(compress::scaled_random_k{0.01f});
  shows(compress::block_random_k{0.01f});
  shows(compress::threshold{});
  shows(compress::adacomp{});
  shows(compress::wangni{});
  shows(compress::atomo{});
  shows(compress::dgc{});
  shows(compress::int8{});
  shows(compress::int4{.block = 0});
  shows(compress::qsgd{});
  shows(compress::terngrad{});
  shows(compress::natural{});
  shows(compress::natural_dithering{});
  shows(compress::fp8_e4m3{});
  shows(compress::fp8_e5m2{});
  shows(compress::one_bit{});
  shows(compress::three_lc{});
  shows(compress::dynamic8{});
  shows(compress::stochastic_bf16{});
  shows(compress::majority_vote{});
  shows(compress::error_feedback{compress::sign{}});
  shows(compress::error_feedback{compress::top_k{0.01f}});
  shows(compress::adaptive_ratio{compress::error_feedback{compress::top_k{0.01f}}});
  // What overflows in the codec is sent once, and its residual restarts.
  compress::error_feedback const halves{compress::fp16{}};
  std::vector<float> x(40, 1e6f);
  auto state = halves.init(compress::bucket{x, {}});
  std::vector<std::byte> payload(halves.wire_size(x.size()));
  halves.encode(compress::bucket{x, {}}, state, payload);
  CHECK(all_finite(state.residual.span()));
}

TEST_CASE("ranks skip together what one of them cannot use") {
  for (float const bad : {opaque(0x7fc00000u), opaque(0x7f800000u)})
    comm::threads(2).run([&](auto& c) {
      arena a({{"w", {600}}});
      auto session = sync::all_reduce{}.join(a.parameters(), optim::adamw{}, c);
      for (int t = 0; t < 3; ++t) {
        session.begin();
        for (float& g : a.gradients()) g = 1;
        if (t == 1 && c.rank() == 1) a.gradients()[555] = bad;
        session.ready(0);
        CHECK(session.step().skipped == (t == 1));
      }
      CHECK(all_finite(a.weights()));
    });
}

TEST_CASE("curvature, noise and climbs that are not finite are left out") {
  arena a({{"w", {4}}});
  optim::sophia const rule{};
  auto state = rule.init(a.parameters());
  std::vector<float> estimate(4, 1.0f);
  estimate[2] = opaque(0xffc00000u);
  CHECK(!rule.observe(a.parameters(), state, optim::hessian_diagonal{estimate}));
  optim::noise_scale noise;
  noise.add(1, opaque(std::uint64_t{0x7ff0000000000000u}), 2, 1);
  CHECK(!noise.known());
  noise.add(1, 3, 2, 1.5);  // all noise
  CHECK(optim::noise_batch{.most = 8}({.variance = noise.variance(), .squared_gradient = 0}) == 8);
}

TEST_CASE("minimizers shorten steps that meet what is not finite, and refuse to begin there") {
  // (w - 1)^2 / 2, which is not defined from 1.2 on: a first step of length 4 overshoots.
  for (double const bad : bad_doubles()) {
    double scale = 4;
    auto const walled = [&](parameter_list& p) {
      double loss = 0;
      for (std::size_t i = 0; i < p[0].weight.size(); ++i) {
        double const off = static_cast<double>(p[0].weight[i]) - 1;
        p[0].gradient[i] = static_cast<float>(scale * off);
        loss += off > 0.2 ? bad : scale * off * off / 2;
      }
      return loss;
    };
    auto const close = [](arena& a) {
      for (float const w : a.weights())
        if (!(w > 0.999f && w < 1.001f)) return false;
      return true;
    };
    arena a({{"w", {5}}});
    optim::minimize(walled, a.parameters(), optim::lbfgs{});
    CHECK(close(a));
    a.weights()[2] = 0;
    optim::minimize(walled, a.parameters(), optim::steepest_descent{});
    CHECK(close(a));
    for (float& w : a.weights()) w = 0;
    optim::hessian_product product(walled, a.parameters());
    optim::hessian_free const rule{.damping = 0};
    auto state = rule.init(a.parameters());
    for (int i = 0; i < 8; ++i) rule.step(walled, product, a.parameters(), state);
    CHECK(close(a));

    a.weights()[2] = 3;
    CHECK_THROWS_AS(optim::minimize(walled, a.parameters(), optim::lbfgs{}), numeric_error);
    CHECK_THROWS_AS(rule.step(walled, product, a.parameters(), state), numeric_error);
    CHECK(a.weights()[2] == 3);
    CHECK_THROWS_AS(optim::hessian_free{.damping = bad}.init(a.parameters()), argument_error);
    CHECK_THROWS_AS(optim::hessian_free{.decay = bad}.init(a.parameters()), argument_error);
    CHECK_THROWS_AS(optim::hessian_free{.forcing = bad}.init(a.parameters()), argument_error);
    CHECK_THROWS_AS(optim::hessian_free{.decrease = bad}.init(a.parameters()), argument_error);
  }
}

TEST_CASE("layers pass on what is not a number, and a prediction with one is not correct") {
  nn::basic_network<nn::plain, nn::shape{1, 4, 4}, nn::max_pool<2>, nn::relu, nn::flatten> net;
  for (std::uint32_t const bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u})
    for (std::size_t at = 0; at < 16; ++at) {
      std::vector<float> image(16, 0.5f);
      image[at] = opaque(bits);
      auto const out = net.predict({.size = 1, .values = image, .tokens = {}, .targets = {}});
      int nans = 0;
      for (float const y : out) nans += is_nan(y);
      CHECK(nans == 1);
      CHECK(is_nan(out[at / 8 * 2 + at % 4 / 2]));
    }
  float nan[]{opaque(0x7fc00000u)};
  nn::detail::f32s const bad = nn::detail::broadcast(nan[0]);
  for (auto const& passed : {nn::detail::exp(bad), nn::detail::tanh(bad), nn::detail::sigmoid(bad),
                             nn::detail::relu_rule::chain(bad, bad)}) {
    float y[4];
    nn::detail::store(y, passed);
    for (float const v : y) CHECK(is_nan(v));
  }
  for (auto const of_all : {nn::detail::best_cells().tanh, nn::detail::best_cells().sigmoid})
    for (std::size_t n = 1; n < 20; ++n) {
      std::vector<float> y(n, nan[0]);
      of_all(y.data(), y.data(), n);
      for (float const v : y) CHECK(is_nan(v));
    }
  for (std::size_t nan = 0; nan < 6; ++nan)
    for (std::int32_t target = 0; target < 6; ++target) {
      std::array<float, 6> logits{1, 5, 2, 5, 0, 3};
      logits[nan] = opaque(0x7fc00000u);
      std::array const targets{target};
      auto const found = nn::softmax_cross_entropy{}({logits.data(), nullptr, targets, 1, 1, 6}, 1.f);
      CHECK(found.correct == 0);
      CHECK(!is_finite(found.loss));
    }
}

TEST_CASE("the layers' own functions are as exact as without these flags") {
  for (float x = -80; x < 80; x += 0.37f) {
    auto const pack = nn::detail::broadcast(x);
    double const e = std::exp(static_cast<double>(x));
    CHECK(std::abs(static_cast<double>(nn::detail::exp(pack)[0]) / e - 1) < 3e-7);
    CHECK(std::abs(static_cast<double>(nn::detail::sigmoid(pack)[0]) * (1 + 1 / e) - 1) < 3e-7);
    CHECK(std::abs(static_cast<double>(nn::detail::tanh(pack)[0]) / std::tanh(static_cast<double>(x)) - 1) < 3e-7);
  }
  CHECK(nn::detail::exp(nn::detail::broadcast(-100))[0] == 0);
  CHECK(nn::detail::exp(nn::detail::broadcast(88.5f))[0] > 2.7e38f);
  for (float const x : {44.3f, 44.4f, 88.4f, 88.7f, 88.8f, 1e30f}) {
    auto const pack = nn::detail::broadcast(x);
    CHECK(nn::detail::tanh(pack)[0] > 0.999999f);
    CHECK(nn::detail::sigmoid(pack)[0] > 0.999999f);
    CHECK(nn::detail::sigmoid(-pack)[0] < 1e-19f);
  }
}
