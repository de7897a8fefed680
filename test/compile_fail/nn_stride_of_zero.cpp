// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stride of 0 is refused by name, before an output is computed with it.
// first error: conv<4, 3, 0.*at<0, .*1, 28, 28|needs positive numbers.*conv<4, 3, 0
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
constexpr int stride = 0;
#else
constexpr int stride = 1;
#endif
static_assert(nn::detail::plan<nn::shape{1, 28, 28}, nn::conv<4, 3, stride>, nn::max_pool<2, stride>>::depth == 2);
