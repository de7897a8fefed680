// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sums of many terms keep their digits, and what is not a number stays seen.
#include <dovetail/nn.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace dovetail;

namespace {

constexpr std::int64_t many = 131'072;

/// The largest relative difference of gradients from `expected`.
template <class Range>
double off(Range const& gradients, double expected) {
  double most = 0;
  for (float const g : gradients) most = std::max(most, std::abs(static_cast<double>(g) / expected - 1));
  return most;
}
/// A loss whose gradient is 0.1 everywhere.
struct tenths {
  loss_sums operator()(nn::predictions const& p, float) const {
    if (p.gradients)
      for (std::int64_t i = 0; i < p.rows() * p.classes; ++i) p.gradients[i] = 0.1f;
    return {0, p.rows(), 0};
  }
};
double const all = static_cast<double>(many) * static_cast<double>(0.1f);

}  // namespace

TEST_CASE("sums over many rows keep their digits, in each layer that has some") {
  SUBCASE("the bias of a dense layer, by oneDNN and by plain loops") {
    std::vector<float> const ones(many, 1.f);
    std::vector<std::int32_t> const targets(many);
    auto const check = [&](auto network) {
      nn::with_loss m{std::move(network), tenths{}};
      for (bool const again : {false, true}) {
        gradient_pass pass;
        pass.accumulate = again;
        m.gradients({many, ones, {}, targets}, pass);
        CHECK(off(m.parameters()[1].gradient, again ? 2 * all : all) < 4e-7);
      }
    };
    check(nn::network<nn::shape{1}, nn::dense<5>>{});
    check(nn::basic_network<nn::plain, nn::shape{1}, nn::dense<5>>{});
  }
  SUBCASE("a row of an embedding that every token wants") {
    nn::with_loss m{nn::network<nn::shape{64}, nn::embedding<3, 6>>{}, tenths{}};
    std::vector<std::int32_t> const tokens(many, 1), targets(many);
    m.gradients({many / 64, {}, tokens, targets}, {});
    auto const g = m.parameters()[0].gradient;
    CHECK(off(g.subspan(6, 6), all) < 4e-7);
    for (std::size_t i : {0u, 5u, 12u, 17u}) CHECK(g[i] == 0);
  }
  SUBCASE("a convolution's bias") {
    std::vector<float> const ones(many, 1.f);
    std::vector<std::int32_t> const targets(32);
    auto const check = [&](auto network) {
      nn::with_loss m{std::move(network), tenths{}};
      m.gradients({32, ones, {}, targets}, {});
      CHECK(off(m.parameters()[1].gradient, all) < 4e-7);
    };
    check(nn::network<nn::shape{1, 64, 64}, nn::conv<8, 1>, nn::flatten>{});
    check(nn::basic_network<nn::plain, nn::shape{1, 64, 64}, nn::conv<8, 1>, nn::flatten>{});
  }
  SUBCASE("the exponentials of many classes") {
    std::vector<float> logits(1'000'001, -2.3f);
    std::array<std::int32_t, 1> const target{0};
    logits[0] = 0;
    auto const found = nn::softmax_cross_entropy{}(
        {logits.data(), nullptr, target, 1, 1, static_cast<std::int64_t>(logits.size())}, 1.f);
    double const term = std::exp(static_cast<double>(-2.3f));
    CHECK(std::abs(found.loss - std::log(1 + 1e6 * term)) < 3e-7);
  }
}

TEST_CASE("a row with a NaN among its logits is not correct, whichever is the target") {
  for (int nan = 0; nan < 6; ++nan)
    for (std::int32_t target = 0; target < 6; ++target) {
      std::array<float, 6> logits{1, 5, 2, 5, 0, 3};
      logits[static_cast<std::size_t>(nan)] = std::numeric_limits<float>::quiet_NaN();
      std::array const targets{target};
      CHECK(nn::softmax_cross_entropy{}({logits.data(), nullptr, targets, 1, 1, 6}, 1.f).correct == 0);
    }
}

TEST_CASE("relu passes on the gradient of what is not a number") {
  nn::with_loss m{nn::network<nn::shape{1}, nn::dense<2>, nn::relu>{}, tenths{}};
  m.parameters()[1].weight[0] = std::numeric_limits<float>::quiet_NaN();
  m.parameters()[0].weight[1] = 0;
  m.parameters()[1].weight[1] = -1;
  std::vector<float> const x{1};
  std::vector<std::int32_t> const targets{0};
  m.gradients({1, x, {}, targets}, {});
  CHECK(m.parameters()[1].gradient[0] == 0.1f);
  CHECK(m.parameters()[1].gradient[1] == 0);
}
