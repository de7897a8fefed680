// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Losses of numbers do not read images, and have no classes that could be drawn from a softmax.
// mistakes: 2
// first error 1 gcc: the loss cannot be applied to the network.{1,2}s output shape.*mean_squared_error.*at<1, .*2, 3, 3
// first error 1 clang: mean_squared_error.*at<1, .*2, 3, 3.*the loss cannot be applied to the network.{1,2}s output shape
// first error 2 gcc: targets are drawn from a softmax, and this loss reads target_values.*mean_squared_error
// first error 2 clang: mean_squared_error.*targets are drawn from a softmax, and this loss reads target_values
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/flatten.hpp>
#include <dovetail/nn/gauss_newton.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>
#include <dovetail/nn/value_losses.hpp>

using namespace dovetail;
#if FAIL == 1
using net = nn::basic_network<nn::plain, nn::shape{1, 5, 5}, nn::conv<2, 3>>;
#else
using net = nn::basic_network<nn::plain, nn::shape{1, 5, 5}, nn::conv<2, 3>, nn::flatten>;
#endif
static_assert(sizeof(nn::with_loss<net, nn::mean_squared_error>) > 0);
#if FAIL == 2
using sampled = nn::with_loss<net, nn::mean_squared_error>;
#else
using sampled = nn::with_loss<net, nn::softmax_cross_entropy>;
#endif
inline void draw(sampled& model, data::batch const& b) { nn::sampled_gradients(model, b, {}, {1, 2}); }
