// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A misfit names the layer, its index and the shape that it was given.
// first error: dense<10>.*at<1, .*28.*put nn::flatten before it|put nn::flatten before it.*dense<10>.*at<1, .*28
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/flatten.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
using second = nn::relu;
#else
using second = nn::flatten;
#endif
// The plan is what nn::network takes its shapes from; no backend is needed to refuse.
static_assert(nn::detail::plan<nn::shape{1, 28, 28}, second, nn::dense<10>>::depth == 2);
