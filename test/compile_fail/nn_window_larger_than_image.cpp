// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Pooling cannot make an image of no pixels.
// first error: max_pool<4.*at<1, .*4, 3, 3|window is larger than its image.*max_pool<4.*at<1, .*4, 3, 3
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
constexpr int window = 4;
#else
constexpr int window = 3;
#endif
static_assert(nn::detail::plan<nn::shape{1, 5, 5}, nn::conv<4, 3>, nn::max_pool<window>>::depth == 2);
