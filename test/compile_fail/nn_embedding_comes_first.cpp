// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens enter a network only at its beginning.
// first error: embedding<100, 8>.*at<1, .*50|must be the first.*embedding<100, 8>.*at<1, .*50
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/embedding.hpp>
#include <dovetail/nn/plan.hpp>

using namespace dovetail;
#ifdef FAIL
using table = nn::detail::plan<nn::shape{50}, nn::tanh, nn::embedding<100, 8>>;
#else
using table = nn::detail::plan<nn::shape{50}, nn::embedding<100, 8>, nn::tanh>;
#endif
static_assert(table::depth == 2);
