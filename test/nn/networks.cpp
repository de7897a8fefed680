// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/concepts.hpp>
#include <dovetail/nn.hpp>

#include <doctest/doctest.h>

#include "nn/differences.hpp"

namespace nn_networks {

using namespace dovetail;

using lenet = nn::network<nn::shape{1, 28, 28}, nn::conv<32, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<128>,
                          nn::relu, nn::dense<10>>;
using reader = nn::network<nn::shape{6}, nn::embedding<20, 7>, nn::lstm<9>, nn::lstm<6>, nn::dense<20>>;

static_assert(lenet::parameter_count == 693'962);
static_assert(lenet::output_shape == nn::shape{10});
static_assert(lenet::shapes[4] == nn::shape{5408});
static_assert(lenet::parameter_offsets[4] == 320);
static_assert(lenet::flops_per_sample ==
              2 * 32 * 26 * 26 * 9 + 32 * 26 * 26 + 32 * 13 * 13 * 4 + 2 * 5408 * 128 + 128 + 2 * 128 * 10);
// The convolution and the first dense layer share their output with the relu behind them.
static_assert(lenet::activation_floats == 32 * 26 * 26 + 32 * 13 * 13 + 5408 + 128 + 10);
static_assert(reader::output_shape == nn::shape{6, 20});
static_assert(reader::input_is_tokens);
static_assert(reader::positions == 6);
static_assert(model<nn::with_loss<lenet, nn::softmax_cross_entropy>>);
static_assert(evaluable<nn::with_loss<reader, nn::softmax_cross_entropy>>);

TEST_CASE("parameters have PyTorch's names, shapes and order") {
  lenet n;
  auto const& p = n.parameters();
  REQUIRE(p.size() == 6);
  CHECK(p[0].name == "0.weight");
  CHECK(p[0].shape == shape{32, 1, 3, 3});
  CHECK(p[1].name == "0.bias");
  CHECK(p[2].name == "4.weight");
  CHECK(p[2].shape == shape{128, 5408});
  CHECK(p[4].name == "6.weight");
  CHECK(p[4].shape == shape{10, 128});
  reader r;
  auto const& q = r.parameters();
  REQUIRE(q.size() == 11);
  CHECK(q[0].name == "0.weight");
  CHECK(q[0].shape == shape{20, 7});
  CHECK(q[1].name == "1.weight_ih_l0");
  CHECK(q[1].shape == shape{36, 7});
  CHECK(q[2].name == "1.weight_hh_l0");
  CHECK(q[2].shape == shape{36, 9});
  CHECK(q[3].name == "1.bias_ih_l0");
  CHECK(q[4].name == "1.bias_hh_l0");
  CHECK(q[9].name == "3.weight");
}

gradient_pass scaled(float scale, bool accumulate = false) {
  gradient_pass pass;
  pass.scale = scale;
  pass.accumulate = accumulate;
  return pass;
}

template <class Network>
differences::distance distance(std::int64_t samples, std::int32_t vocabulary = 0, gradient_pass const& pass = {}) {
  return differences::from_reference(nn::with_loss{Network{}, nn::softmax_cross_entropy{}},
                                     differences::noise<Network>(samples, vocabulary), pass);
}
#define CHECK_GRADIENTS(...)               \
  do {                                     \
    auto const d = distance < __VA_ARGS__; \
    CAPTURE(d.tensor);                     \
    CHECK(d.loss < 1e-6);                  \
    CHECK(d.gradient < 1e-5);              \
  } while (false)

TEST_CASE("loss and gradients of every layer are those of a reference in double precision") {
  CHECK_GRADIENTS(lenet > (2));
  CHECK_GRADIENTS(reader > (3, 20));
  CHECK_GRADIENTS(nn::network < nn::shape{5}, nn::dense<7>, nn::tanh, nn::dense<9>, nn::sigmoid, nn::dense < 3 >>> (4));
  CHECK_GRADIENTS(nn::network < nn::shape{3, 11, 9}, nn::conv<5, 3, 2, 1>, nn::sigmoid, nn::conv<16, 2, 1, 1>, nn::tanh,
                  nn::max_pool<3, 2>, nn::conv<17, 2>, nn::relu, nn::flatten, nn::dense < 4 >>> (3));
  CHECK_GRADIENTS(nn::network < nn::shape{5, 6}, nn::gru<7>, nn::gru<8>, nn::dense < 4 >>> (3));
  CHECK_GRADIENTS(nn::network < nn::shape{5, 6}, nn::lstm<7>, nn::tanh, nn::lstm<5>, nn::flatten,
                  nn::dense < 4 >>> (3));
  CHECK_GRADIENTS(nn::network < nn::shape{4, 3}, nn::dense<6>, nn::relu, nn::lstm<4>, nn::dense < 5 >>> (2));
  CHECK_GRADIENTS(nn::network < nn::shape{1, 3}, nn::lstm<4>, nn::gru<3>, nn::dense < 5 >>> (1));
}

TEST_CASE("gradients are scaled and, when asked, added") {
  using small = nn::network<nn::shape{2, 6, 6}, nn::conv<3, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<4>>;
  CHECK_GRADIENTS(small > (3, 0, scaled(0.125f)));
  CHECK_GRADIENTS(reader > (3, 20, scaled(3.f)));
  auto const twice = [](auto m, auto const& a, auto const& b) {
    m.gradients(a, scaled(0.5f));
    auto const d = differences::from_reference(m, b, scaled(0.25f, true));
    CAPTURE(d.tensor);
    CHECK(d.gradient < 1e-5);
  };
  twice(nn::with_loss{small{}, nn::softmax_cross_entropy{}}, differences::noise<small>(3),
        differences::noise<small>(2));
  twice(nn::with_loss{reader{}, nn::softmax_cross_entropy{}}, differences::noise<reader>(3, 20),
        differences::noise<reader>(1, 20, 5));
  using gated = nn::network<nn::shape{5, 6}, nn::gru<7>, nn::dense<4>>;
  twice(nn::with_loss{gated{}, nn::softmax_cross_entropy{}}, differences::noise<gated>(3),
        differences::noise<gated>(2));
}

TEST_CASE("the plain backend agrees with the reference too") {
  CHECK_GRADIENTS(nn::basic_network < nn::plain, nn::shape{3, 9, 8}, nn::conv<5, 3, 2, 1>, nn::relu, nn::max_pool<2>,
                  nn::conv<4, 2, 1, 1>, nn::tanh, nn::flatten, nn::dense < 4 >>> (3));
  CHECK_GRADIENTS(nn::basic_network < nn::plain, nn::shape{5}, nn::embedding<9, 4>, nn::lstm<6>, nn::gru<5>,
                  nn::dense < 9 >>> (3, 9));
}

TEST_CASE("the two backends agree on the network of the introduction") {
  using loops = nn::basic_network<nn::plain, nn::shape{1, 28, 28}, nn::conv<32, 3>, nn::relu, nn::max_pool<2>,
                                  nn::flatten, nn::dense<128>, nn::relu, nn::dense<10>>;
  nn::with_loss a{lenet{}, nn::softmax_cross_entropy{}};
  nn::with_loss b{loops{}, nn::softmax_cross_entropy{}};
  auto const d = differences::noise<lenet>(4);
  CHECK(a.gradients(d, {}).loss == doctest::Approx(b.gradients(d, {}).loss).epsilon(1e-6));
  auto const x = a.parameters().flat_gradients(), y = b.parameters().flat_gradients();
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(x[i] == doctest::Approx(y[i]).epsilon(1e-4).scale(0.1));
}

}  // namespace nn_networks
