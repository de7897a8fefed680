// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Blocks whose parts do not fit are refused, and a layer in a block says by a path where it stands.
// mistakes: 7
// first error 1 gcc: a residual adds its input to the output of its layers, and they differ in shape.*residual<.*dense<4>.*at<1,
// first error 1 clang: residual<.*dense<4>.*at<1,.*a residual adds its input to the output of its layers
// first error 2 gcc: a residual adds its input to the output of its layers.*residual<.*shortcut<
// first error 2 clang: residual<.*shortcut<.*a residual adds its input to the output of its layers
// first error 3 gcc: a shortcut must be the first in the list of a residual
// first error 3 clang: a shortcut must be the first in the list of a residual
// first error 4 gcc: a residual needs at least one layer
// first error 4 clang: a residual needs at least one layer
// first error 5 gcc: max_pool reads an image.*max_pool<2.*at<2, .*, 0, 1>
// first error 5 clang: max_pool<2.*at<2, .*, 0, 1>.*max_pool reads an image
// first error 6 gcc: this layer reads tokens and must be the first.*embedding<3, 3>.*at<0, .*, 0>
// first error 6 clang: embedding<3, 3>.*at<0, .*, 0>.*this layer reads tokens and must be the first
// first error 7 gcc: blocks are nested too deeply.*at<0,
// first error 7 clang: at<0,.*blocks are nested too deeply
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/block.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/embedding.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>

using namespace dovetail;
template <int Blocks>
struct within {
  using type = nn::sequence<typename within<Blocks - 1>::type>;
};
template <>
struct within<0> {
  using type = nn::dense<3>;
};
#if FAIL == 1
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::dense<3>, nn::residual<nn::dense<4>>, nn::dense<2>>;
#elif FAIL == 2
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::residual<nn::shortcut<nn::dense<4>>, nn::dense<3>>>;
#elif FAIL == 3
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::residual<nn::tanh, nn::shortcut<nn::dense<3>>>>;
#elif FAIL == 4
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::dense<3>, nn::residual<>>;
#elif FAIL == 5
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::dense<3>, nn::tanh,
                              nn::sequence<nn::residual<nn::tanh, nn::max_pool<2>>>>;
#elif FAIL == 6
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::residual<nn::embedding<3, 3>>>;
#elif FAIL == 7
using net = nn::basic_network<nn::plain, nn::shape{3}, within<24>::type>;
#else
using net = nn::basic_network<nn::plain, nn::shape{3}, nn::dense<3>, nn::residual<nn::tanh, nn::dense<3>>,
                              nn::residual<nn::shortcut<nn::dense<4>>, nn::dense<4>>, within<23>::type>;
#endif
static_assert(sizeof(net) > 0 && net::depth > 0);
