// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Three hundred layers are no deeper for a compiler than three (Clang ends folds at 256), and a mistake in the last one
// is said as that of any other.
// first error: lstm<2>.*at<300,|lstm reads a sequence.*lstm<2>.*at<300,
#include <cstddef>
#include <type_traits>
#include <utility>

#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/lstm.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>

using namespace dovetail;
#ifdef FAIL
using last = nn::lstm<2>;
#else
using last = nn::dense<2>;
#endif
template <std::size_t... I>
auto stack(std::index_sequence<I...>)
    -> nn::basic_network<nn::plain, nn::shape{3}, std::conditional_t<I % 2 == 0, nn::dense<3>, nn::tanh>..., last>;
using network = decltype(stack(std::make_index_sequence<300>{}));
static_assert(network::depth == 301);

inline void learn(network& n, data::batch const& b) {
  n.forward(b, {}, true);
  n.backward(b, {});
}
