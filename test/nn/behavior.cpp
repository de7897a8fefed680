// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/nn.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "nn/differences.hpp"

namespace nn_behavior {

using namespace dovetail;
using differences::noise;

namespace {

using seeing = nn::network<nn::shape{2, 8, 8}, nn::conv<6, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<12>,
                           nn::relu, nn::dense<5>>;
using reading = nn::network<nn::shape{7}, nn::embedding<11, 6>, nn::lstm<8>, nn::dense<11>>;

template <class Network>
auto with_entropy() {
  return nn::with_loss{Network{}, nn::softmax_cross_entropy{}};
}
std::vector<float> copy_of(std::span<float const> s) { return {s.begin(), s.end()}; }

}  // namespace

TEST_CASE("a copy has the same weights and its own memory, and computes the same") {
  auto a = with_entropy<seeing>();
  auto const d = noise<seeing>(4);
  a.network.initialize(7);
  a.gradients(d, {});
  auto b = a;
  CHECK(b.evaluate(d) == a.evaluate(d));
  b.parameters()[0].weight[0] += 1;
  CHECK(b.evaluate(d).loss != a.evaluate(d).loss);
  a = b;
  CHECK(b.evaluate(d) == a.evaluate(d));
  auto c = std::move(b);
  CHECK(c.evaluate(d) == a.evaluate(d));
}

TEST_CASE("initialize depends on the seed alone, and starts as PyTorch does") {
  reading a, b, c;
  CHECK(copy_of(a.parameters().flat_weights()) == copy_of(b.parameters().flat_weights()));
  c.initialize(1);
  CHECK(copy_of(a.parameters().flat_weights()) != copy_of(c.parameters().flat_weights()));
  nn::network<nn::shape{400}, nn::dense<300>> wide;
  double mean = 0, square = 0, largest = 0;
  auto const w = wide.parameters()[0].weight;
  for (double const v : w) mean += v, square += v * v, largest = std::max(largest, std::abs(v));
  auto const n = static_cast<double>(w.size());
  CHECK(largest <= 0.05);  // 1 / sqrt(400)
  CHECK(largest > 0.0499);
  CHECK(std::abs(mean / n) < 3e-4);
  CHECK(std::sqrt(square / n) == doctest::Approx(0.05 / std::sqrt(3.0)).epsilon(0.01));
  nn::network<nn::shape{2}, nn::embedding<500, 101>> table;
  mean = square = 0;
  for (double const v : table.parameters()[0].weight) mean += v, square += v * v;
  CHECK(std::abs(mean / 50500) < 0.02);
  CHECK(square / 50500 == doctest::Approx(1).epsilon(0.03));
  for (auto const& p : a.parameters())  // 1 / sqrt(8) for every tensor of the lstm
    if (p.name[0] == '1')
      for (float const v : p.weight) REQUIRE(std::abs(v) <= 0.353554f);
}

TEST_CASE("backward tells each layer's first index, from the end to the beginning") {
  auto m = with_entropy<seeing>();
  std::vector<std::size_t> told;
  gradient_pass pass;
  pass.ready = [&](std::size_t first) { told.push_back(first); };
  std::vector<std::size_t> const expected{seeing::parameter_offsets[6], seeing::parameter_offsets[4], 0};
  m.gradients(noise<seeing>(2), pass);
  CHECK(told == expected);
  told.clear();
  m.gradients(noise<seeing>(0), pass);
  CHECK(told == expected);
}

TEST_CASE("a gradient that was told ready is final") {
  auto m = with_entropy<seeing>();
  auto const d = noise<seeing>(3);
  auto const whole = [&] { return copy_of(m.parameters().flat_gradients()); };
  m.gradients(d, {});
  auto const expected = whole();
  gradient_pass pass;
  pass.ready = [&](std::size_t first) {
    auto const now = whole();
    CHECK(std::equal(now.begin() + static_cast<std::ptrdiff_t>(first), now.end(),
                     expected.begin() + static_cast<std::ptrdiff_t>(first)));
  };
  for (auto& g : m.parameters().flat_gradients()) g = 99;
  m.gradients(d, pass);
}

TEST_CASE("a batch without samples gives zero gradients, or adds nothing") {
  auto m = with_entropy<reading>();
  m.gradients(noise<reading>(2, 11), {});
  auto const before = copy_of(m.parameters().flat_gradients());
  gradient_pass adding;
  adding.accumulate = true;
  CHECK(m.gradients(noise<reading>(0, 11), adding) == loss_sums{});
  CHECK(copy_of(m.parameters().flat_gradients()) == before);
  CHECK(m.gradients(noise<reading>(0, 11), {}) == loss_sums{});
  for (float const g : m.parameters().flat_gradients()) REQUIRE(g == 0);
  CHECK(m.evaluate(noise<reading>(0, 11)) == loss_sums{});
  CHECK(m.predict(noise<reading>(0, 11)).empty());
  CHECK(with_entropy<seeing>().gradients(noise<seeing>(0), {}) == loss_sums{});
}

TEST_CASE("batches of changing size do not disturb each other") {
  auto m = with_entropy<seeing>();
  auto const five = noise<seeing>(5), two = noise<seeing>(2);
  auto const first = m.gradients(five, {});
  auto const gradients = copy_of(m.parameters().flat_gradients());
  m.gradients(two, {});
  m.evaluate(noise<seeing>(9));
  CHECK(m.gradients(five, {}) == first);
  CHECK(copy_of(m.parameters().flat_gradients()) == gradients);
}

TEST_CASE("logits come sample by sample, images channel by channel") {
  auto m = with_entropy<reading>();
  auto const d = noise<reading>(3, 11);
  auto const all = copy_of(m.predict(d));
  REQUIRE(all.size() == 3 * 7 * 11);
  for (std::size_t s = 0; s < 3; ++s) {
    auto const one = m.predict({1, {}, std::span(d.tokens).subspan(s * 7, 7), {}});
    for (std::size_t i = 0; i < 77; ++i) CHECK(one[i] == doctest::Approx(all[s * 77 + i]).epsilon(1e-5));
  }
  nn::network<nn::shape{2, 6, 5}, nn::conv<3, 2>> filter;
  auto const image = noise<decltype(filter)>(2);
  auto const got = copy_of(filter.predict(image));
  reference::values w(filter.parameters().flat_weights().begin(), filter.parameters().flat_weights().end());
  for (std::size_t s = 0; s < 2; ++s) {
    reference::values x(image.values.begin() + static_cast<std::ptrdiff_t>(s * 60),
                        image.values.begin() + static_cast<std::ptrdiff_t>((s + 1) * 60));
    auto const y = reference::outputs(std::type_identity<decltype(filter)>{}, w, x);
    REQUIRE(y.size() == 60);
    for (std::size_t i = 0; i < 60; ++i) CHECK(got[s * 60 + i] == doctest::Approx(y[i]).epsilon(1e-5));
  }
}

TEST_CASE("accuracy counts the predictions whose largest logit is the target") {
  auto m = with_entropy<seeing>();
  auto d = noise<seeing>(20);
  auto const logits = copy_of(m.predict(d));
  std::int64_t expected = 0;
  for (std::size_t s = 0; s < 20; ++s) {
    auto const row = logits.begin() + static_cast<std::ptrdiff_t>(s * 5);
    expected += std::max_element(row, row + 5) - row == d.targets[s];
  }
  auto const sums = m.evaluate(d);
  CHECK(sums.count == 20);
  CHECK(sums.correct == expected);
  for (std::size_t s = 0; s < 20; ++s) {
    auto const row = logits.begin() + static_cast<std::ptrdiff_t>(s * 5);
    d.targets[s] = static_cast<std::int32_t>(std::max_element(row, row + 5) - row);
  }
  CHECK(m.evaluate(d).correct == 20);
}

TEST_CASE("the cross-entropy neither overflows nor hides what is not finite") {
  std::array<float, 10> logits{1000, -1000, 0, 3, 2, -1e30f, 5, 5, 5, 5};
  std::array<float, 10> gradients{};
  std::array<std::int32_t, 2> targets{0, 2};
  nn::predictions p{logits.data(), gradients.data(), targets, 2, 1, 5};
  auto const sums = nn::softmax_cross_entropy{}(p, 2.f);
  CHECK(sums.loss == doctest::Approx(std::log(4.0)));
  CHECK(sums.correct == 1);
  CHECK(gradients[0] == doctest::Approx(0));
  CHECK(gradients[6] == doctest::Approx(0.5));
  CHECK(gradients[7] == doctest::Approx(2 * (0.25 - 1)));
  logits[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(nn::softmax_cross_entropy{}(p, 1.f).loss));
}

TEST_CASE("a NaN in an image reaches the loss through convolution, relu and pooling") {
  auto m = with_entropy<seeing>();
  auto d = noise<seeing>(2);
  d.values[37] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(m.evaluate(d).loss));
  nn::network<nn::shape{1, 2, 2}, nn::max_pool<2>> pool;
  for (std::size_t i = 0; i < 4; ++i) {
    std::array<float, 4> pixels{1, 2, 3, 4};
    pixels[i] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(pool.predict({1, pixels, {}, {}})[0]));
  }
}

TEST_CASE("a batch that does not fit is refused in one line") {
  auto m = with_entropy<seeing>();
  auto d = noise<seeing>(2);
  d.values.pop_back();
  CHECK_THROWS_WITH_AS(m.gradients(d, {}),
                       "network: a batch of 2 samples of shape {2, 8, 8} needs 256 values, it has 255: build the batch "
                       "for this network's input shape",
                       argument_error);
  d = noise<seeing>(2);
  d.targets.push_back(0);
  CHECK_THROWS_WITH_AS(m.evaluate(d), "with_loss: a batch of 2 samples needs 2 targets, it has 3: one per sample",
                       argument_error);
  d = noise<seeing>(2);
  d.targets[1] = 5;
  CHECK_THROWS_WITH_AS(m.evaluate(d),
                       "softmax_cross_entropy: target 5 of sample 1, position 0 is outside [0, 5): check the labels "
                       "against the network's last layer",
                       input_error);
  d.targets[1] = -1;
  CHECK_THROWS_AS(m.gradients(d, {}), input_error);
  CHECK_THROWS_AS(m.evaluate(noise<seeing>(2), 0), argument_error);
  auto r = with_entropy<reading>();
  auto t = noise<reading>(2, 11);
  t.tokens[8] = 11;
  CHECK_THROWS_WITH_AS(
      r.gradients(t, {}),
      "embedding: token 11 of sample 1, position 1 is outside [0, 11): check the vocabulary of the data", input_error);
  t.tokens.pop_back();
  CHECK_THROWS_AS(r.gradients(t, {}), argument_error);
}

TEST_CASE("dropout drops its share, keeps the mean, and repeats its mask in the backward pass") {
  constexpr std::int64_t n = 4096;
  using passing = nn::network<nn::shape{n}, nn::dropout<0.25f>>;
  passing net;
  std::vector<float> const ones(n, 1.f);
  std::vector<std::int32_t> const target(1);
  data::batch const b{1, ones, {}, target};
  auto const mask = [&](gradient_pass const& pass) {
    auto const p = net.forward(b, pass, true);
    return std::vector<float>(p.logits, p.logits + n);
  };
  gradient_pass pass;
  pass.seed = 3;
  auto const first = mask(pass);
  std::int64_t kept = 0;
  for (float const v : first) {
    REQUIRE((v == 0.f || v == doctest::Approx(1 / 0.75)));
    kept += v != 0;
  }
  CHECK(static_cast<double>(kept) / n == doctest::Approx(0.75).epsilon(0.03));
  CHECK(mask(pass) == first);
  auto other = pass;
  other.seed = 4;
  CHECK(mask(other) != first);
  other = pass;
  other.step = 1;
  CHECK(mask(other) != first);
  other = pass;
  other.rank = 1;
  CHECK(mask(other) != first);
  CHECK(copy_of(net.predict(b)) == ones);  // no noise outside training

  // Through y = dropout(x W): d(sum of y)/dW is x times the mask that was used forward.
  using dropped = nn::network<nn::shape{1}, nn::dense<64>, nn::dropout<0.5f>, nn::dense<2>>;
  auto m = with_entropy<dropped>();
  std::vector<float> const one(1, 1.f);
  m.gradients({1, one, {}, target}, pass);
  auto const p = m.network.forward({1, one, {}, target}, pass, true);
  CHECK(p.rows() == 1);
  std::int64_t silent = 0;
  auto const g = m.parameters()[1].gradient;  // of the first bias
  auto const w = m.parameters()[2].gradient;  // {2, 64}: activations after dropout times d(logit)
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK((g[i] == 0) == (w[i] == 0));
    silent += g[i] == 0;
  }
  CHECK(silent > 16);
  CHECK(silent < 48);
}

TEST_CASE("two layers of dropout do not share a mask") {
  nn::network<nn::shape{256}, nn::dropout<0.5f>, nn::dropout<0.5f>> net;
  std::vector<float> const ones(256, 1.f);
  auto const p = net.forward({1, ones, {}, {}}, {}, true);
  int kept = 0;
  for (int i = 0; i < 256; ++i) kept += p.logits[i] != 0;
  CHECK(kept > 32);
  CHECK(kept < 96);  // a shared mask would keep 128
}

TEST_CASE("a run is repeated bit for bit, and ranks in threads do not disturb each other") {
  auto const d = noise<seeing>(6);
  auto const t = noise<reading>(5, 11);
  auto const run = [&](int threads) {
    gradient_pass pass;
    pass.threads = threads;
    auto a = with_entropy<seeing>();
    auto b = with_entropy<reading>();
    std::vector<float> all;
    for (int i = 0; i < 3; ++i) {
      a.gradients(d, pass);
      b.gradients(t, pass);
      for (float const g : a.parameters().flat_gradients()) all.push_back(g);
      for (float const g : b.parameters().flat_gradients()) all.push_back(g);
    }
    return all;
  };
  auto const expected = run(1);
  CHECK(run(1) == expected);
  std::vector<float> one, two;
  std::thread first([&] { one = run(1); }), second([&] { two = run(1); });
  first.join();
  second.join();
  CHECK(one == expected);
  CHECK(two == expected);
  auto const pair = run(2);
  CHECK(run(2) == pair);
  for (std::size_t i = 0; i < pair.size(); ++i)
    REQUIRE(pair[i] == doctest::Approx(expected[i]).epsilon(1e-3).scale(0.1));
}

}  // namespace nn_behavior
