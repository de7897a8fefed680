// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An extent of 0, or below, is no input.
// first error: at<0, .*0, 28|every extent of a network's input is at least 1.*at<0, .*0, 28
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
constexpr nn::shape input{1, 0, 28};
#else
constexpr nn::shape input{1, 28, 28};
#endif
static_assert(nn::detail::plan<input, nn::conv<4, 3>>::depth == 1);
