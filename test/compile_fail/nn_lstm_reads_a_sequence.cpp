// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An image is no sequence.
// first error: lstm<8>.*at<1, .*4, 6, 6|lstm reads a sequence.*lstm<8>.*at<1, .*4, 6, 6
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/lstm.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
using reads_one = nn::detail::plan<nn::shape{3, 8, 8}, nn::conv<4, 3>, nn::lstm<8>>;
#else
using reads_one = nn::detail::plan<nn::shape{8, 3}, nn::dense<4>, nn::lstm<8>>;
#endif
static_assert(reads_one::depth == 2);
