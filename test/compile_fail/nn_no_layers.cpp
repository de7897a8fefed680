// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A network of no layers has no output.
// first error: a network needs at least one layer
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>

using namespace dovetail;
#ifdef FAIL
using network = nn::basic_network<nn::plain, nn::shape{50}>;
#else
using network = nn::basic_network<nn::plain, nn::shape{50}, nn::tanh>;
#endif
static_assert(network::depth == 1);
