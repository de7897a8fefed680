// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shapes are inferred before a misfit is reported: the third layer is told what reaches it.
// first error: conv<8, 5.*at<2, .*16, 4, 4|kernel is larger than its image.*conv<8, 5.*at<2, .*16, 4, 4
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
constexpr int kernel = 5;
#else
constexpr int kernel = 3;
#endif
using small = nn::detail::plan<nn::shape{3, 8, 8}, nn::conv<16, 3, 1, 1>, nn::max_pool<2>, nn::conv<8, kernel>>;
static_assert(small::depth == 3);
