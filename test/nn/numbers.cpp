// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sums of many terms keep their digits, and what is not a number stays seen.
#include <dovetail/core/philox.hpp>
#include <dovetail/nn.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

namespace nn_numbers {

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
/// Half as many sequences of two steps, which are all the same: their gradients are as many times that of one. Pieces
/// of 384 equal terms, which oneDNN adds one after the other, are exact within 1.2e-5.
template <class Network>
void check_equal_rows(std::size_t inputs) {
  constexpr std::int64_t sequences = many / 2;
  std::vector<float> const x(many * inputs, 1.f);
  std::vector<std::int32_t> const targets(many);
  nn::with_loss one{Network{}, tenths{}}, equal{Network{}, tenths{}};
  one.gradients({1, std::span(x).first(2 * inputs), {}, std::span(targets).first(2)}, {});
  equal.gradients({sequences, x, {}, targets}, {});
  for (std::size_t i = 0; i < one.parameters().size(); ++i)
    for (std::size_t j = 0; j < one.parameters()[i].size(); ++j) {
      double const expected = static_cast<double>(one.parameters()[i].gradient[j]) * sequences;
      CAPTURE(one.parameters()[i].name);
      CHECK(expected != 0);
      CHECK(std::abs(static_cast<double>(equal.parameters()[i].gradient[j]) / expected - 1) < 2e-5);
    }
}
double const all = static_cast<double>(many) * static_cast<double>(0.1f);

}  // namespace

TEST_CASE("sums over many rows keep their digits, in each layer that has some") {
  SUBCASE("a dense layer, by oneDNN and by plain loops") {
    auto const check = [](auto network, std::size_t inputs) {
      std::vector<float> const ones(many * inputs, 1.f);
      std::vector<std::int32_t> const targets(many);
      nn::with_loss m{std::move(network), tenths{}};
      for (bool const again : {false, true}) {
        gradient_pass pass;
        pass.accumulate = again;
        m.gradients({many, ones, {}, targets}, pass);
        CHECK(off(m.parameters()[0].gradient, again ? 2 * all : all) < 4e-6);
        CHECK(off(m.parameters()[1].gradient, again ? 2 * all : all) < 4e-7);
      }
    };
    check(nn::network<nn::shape{1}, nn::dense<5>>{}, 1);
    check(nn::network<nn::shape{5}, nn::dense<1>>{}, 5);
    check(nn::network<nn::shape{3}, nn::dense<2>>{}, 3);
    check(nn::basic_network<nn::plain, nn::shape{1}, nn::dense<5>>{}, 1);
    check(nn::basic_network<nn::plain, nn::shape{3}, nn::dense<2>>{}, 3);
  }
  SUBCASE("an LSTM and a GRU, by oneDNN and by plain loops") {
    check_equal_rows<nn::network<nn::shape{2, 2}, nn::lstm<3>>>(2);
    check_equal_rows<nn::network<nn::shape{2, 1}, nn::lstm<1>>>(1);
    check_equal_rows<nn::network<nn::shape{2, 2}, nn::gru<3>>>(2);
    check_equal_rows<nn::network<nn::shape{2, 1}, nn::gru<1>>>(1);
    check_equal_rows<nn::basic_network<nn::plain, nn::shape{2, 2}, nn::lstm<3>>>(2);
    check_equal_rows<nn::basic_network<nn::plain, nn::shape{2, 2}, nn::gru<3>>>(2);
  }
  SUBCASE("a row of an embedding that every token wants") {
    nn::with_loss m{nn::network<nn::shape{64}, nn::embedding<3, 6>>{}, tenths{}};
    std::vector<std::int32_t> const tokens(many, 1), targets(many);
    m.gradients({many / 64, {}, tokens, targets}, {});
    auto const g = m.parameters()[0].gradient;
    CHECK(off(g.subspan(6, 6), all) < 4e-7);
    for (std::size_t i : {0u, 5u, 12u, 17u}) CHECK(g[i] == 0);
  }
  SUBCASE("a convolution, by oneDNN and by plain loops") {
    // oneDNN adds the pixels of up to 16,384 per core one after the other: the weights' bound is wider there.
    auto const check = [](auto network, double bound) {
      constexpr std::size_t images = 259;  // the last part is smaller than the others
      std::vector<float> const ones(images * static_cast<std::size_t>(network.input_shape.size()), 1.f);
      std::vector<std::int32_t> const targets(images);
      double const pixels = images * static_cast<double>(network.shapes[1][1] * network.shapes[1][2]);
      nn::with_loss m{std::move(network), tenths{}};
      for (bool const again : {false, true}) {
        gradient_pass pass;
        pass.accumulate = again;
        m.gradients({images, ones, {}, targets}, pass);
        double const expected = (again ? 2 : 1) * pixels * static_cast<double>(0.1f);
        CHECK(off(m.parameters()[0].gradient, expected) < bound);
        CHECK(off(m.parameters()[1].gradient, expected) < 4e-7);
      }
    };
    check(nn::network<nn::shape{1, 64, 64}, nn::conv<32, 3>, nn::flatten>{}, 2e-4);
    check(nn::network<nn::shape{3, 64, 64}, nn::conv<8, 5>, nn::flatten>{}, 2e-4);
    check(nn::basic_network<nn::plain, nn::shape{1, 64, 64}, nn::conv<2, 1>, nn::flatten>{}, 4e-6);
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

TEST_CASE("products whose sums are cut are those of the whole matrices") {
  auto const check = [](auto backend, std::int64_t m, std::int64_t n, std::int64_t k) {
    random_stream const noise{3};
    auto const fill = [&](std::int64_t size, std::uint64_t from) {
      std::vector<float> v(static_cast<std::size_t>(size));
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(noise.word(from + i) % 2001) * 1e-3f - 1;
      return v;
    };
    auto const a = fill(m * k, 0), b = fill(k * n, 1u << 30), c = fill(m * n, 1u << 31);
    [[maybe_unused]] auto const threads = backend.use(2);
    for (int form = 0; form < 4; ++form)
      for (float const beta : {0.f, 1.f, 0.5f}) {
        bool const a_transposed = form & 1, b_transposed = form & 2;
        auto found = c;
        if (beta == 0.f) found.assign(c.size(), std::numeric_limits<float>::quiet_NaN());  // is not read
        backend.gemm(a_transposed, b_transposed, m, n, k, a.data(), b.data(), beta, found.data());
        double worst = 0;
        for (std::int64_t at = 0; at < m * n; at += m * n / 40 + 1) {
          auto const i = at / n, j = at % n;
          double sum = static_cast<double>(beta) * static_cast<double>(c[static_cast<std::size_t>(at)]);
          for (std::int64_t p = 0; p < k; ++p)
            sum += static_cast<double>(a[static_cast<std::size_t>(a_transposed ? p * m + i : i * k + p)]) *
                   static_cast<double>(b[static_cast<std::size_t>(b_transposed ? j * k + p : p * n + j)]);
          double const off = std::abs(static_cast<double>(found[static_cast<std::size_t>(at)]) - sum);
          worst = off <= worst ? worst : off;  // a NaN stays
        }
        CAPTURE(form);
        CAPTURE(m);
        CHECK(worst < 1e-4);
      }
  };
  check(nn::host{}, 300, 250, 4097);  // two strips of rows of C, two blocks
  check(nn::host{}, 1, 7, 9000);
  check(nn::host{}, 7, 1, 9000);
  check(nn::plain{}, 300, 250, 300);
  check(nn::plain{}, 3, 1, 1000);
  check(nn::plain{}, 2, 66'000, 260);  // a row is longer than a strip
}

TEST_CASE("a convolution's weight gradient from parts of the batch is that of plain loops") {
  random_stream const noise{4};
  constexpr std::size_t images = 37;  // parts of 11 and of 22 images, and what is left
  std::vector<float> x(images * 3 * 40 * 40);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(noise.word(i) % 2001) * 1e-3f - 1;
  std::vector<std::int32_t> targets(images);
  for (std::size_t i = 0; i < images; ++i) targets[i] = static_cast<std::int32_t>(i % 3);
  nn::with_loss plain{
      nn::basic_network<nn::plain, nn::shape{3, 40, 40}, nn::conv<5, 3>, nn::relu, nn::flatten, nn::dense<3>>{},
      nn::softmax_cross_entropy{}};
  nn::with_loss host{nn::network<nn::shape{3, 40, 40}, nn::conv<5, 3>, nn::relu, nn::flatten, nn::dense<3>>{},
                     nn::softmax_cross_entropy{}};
  for (int const threads : {1, 2})
    for (bool const again : {false, true}) {
      CAPTURE(threads);
      gradient_pass pass;
      pass.threads = threads;
      pass.accumulate = again;
      plain.gradients({images, x, {}, targets}, pass);
      host.gradients({images, x, {}, targets}, pass);
      auto const wanted = plain.parameters()[0].gradient, found = host.parameters()[0].gradient;
      for (std::size_t i = 0; i < wanted.size(); ++i)
        CHECK(std::abs(static_cast<double>(found[i] - wanted[i])) <
              1e-5 * (1 + std::abs(static_cast<double>(wanted[i]))));
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

}  // namespace nn_numbers
