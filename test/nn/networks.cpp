// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/concepts.hpp>
#include <dovetail/nn.hpp>

#include <doctest/doctest.h>

#include "nn/differences.hpp"

using namespace dovetail;

using lenet = nn::network<nn::shape{1, 28, 28}, nn::conv<32, 3>, nn::relu, nn::max_pool<2>, nn::flatten,
                          nn::dense<128>, nn::relu, nn::dense<10>>;
using reader = nn::network<nn::shape{6}, nn::embedding<20, 7>, nn::lstm<9>, nn::lstm<6>, nn::dense<20>>;

static_assert(lenet::parameter_count == 693'962);
static_assert(lenet::output_shape == nn::shape{10});
static_assert(lenet::shapes[4] == nn::shape{5408});
static_assert(lenet::parameter_offsets[4] == 320);
static_assert(lenet::flops_per_sample == 2 * 32 * 26 * 26 * 9 + 32 * 26 * 26 + 32 * 13 * 13 * 4 + 2 * 5408 * 128 + 128 +
                                             2 * 128 * 10);
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

TEST_CASE("gradients agree with central differences") {
  nn::with_loss reading{reader{}, nn::softmax_cross_entropy{}};
  CHECK(differences::worst(reading, differences::noise<reader>(3, 20, 20)) < 1e-3);
  nn::with_loss seeing{lenet{}, nn::softmax_cross_entropy{}};
  CHECK(differences::worst(seeing, differences::noise<lenet>(3, 10), 1e-3f) < 2e-2);
}
