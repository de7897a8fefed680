// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/nn/loss.hpp>
#include <dovetail/nn/network.hpp>

namespace dovetail::nn {

/// A network and what it is trained to minimize: a `model` and `evaluable` (concepts.hpp).
///   nn::with_loss m{lenet{}, nn::softmax_cross_entropy{}};
template <class Network, class Loss>
struct with_loss {
  Network network;
  Loss loss;

  static_assert(detail::must_be_a_loss<Loss>::holds);
  DOVETAIL_REQUIRE(loss_traits<Loss>::fits(Network::output_shape),
                   "the loss cannot be applied to the network's output shape", Loss,
                   at<static_cast<int>(Network::depth), Network::output_shape>);

  parameter_list& parameters() { return network.parameters(); }
  parameter_list const& parameters() const { return network.parameters(); }

  std::vector<named_tensor> buffers() { return network.buffers(); }

  /// pass.scale × d(sum of losses)/dw into the gradients; pass.ready after each layer's. A batch of 0 samples gives
  /// gradients of zero, so that a rank that ran out of data can still take part.
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    check(b);
    auto const p = network.forward(b, pass, true);
    auto const sums = loss(p, pass.scale);
    network.backward(b, pass);
    return sums;
  }
  /// The losses alone, without noise.
  loss_sums evaluate(data::batch const& b, int threads = 1) {
    check(b);
    gradient_pass pass;
    pass.threads = threads;
    return loss(network.forward(b, pass, false), 1.f);
  }
  /// The network's outputs without noise; valid until the next call.
  std::span<float const> predict(data::batch const& b, int threads = 1) { return network.predict(b, threads); }

 private:
  static void check(data::batch const& b) {
    require(b.targets.size() == static_cast<std::size_t>(b.size * Network::positions), "with_loss: a batch of ", b.size,
            " samples needs ", b.size * Network::positions, " targets, it has ", b.targets.size(), ": ",
            Network::positions == 1 ? "one per sample" : "one per position of the sequence");
  }
};

}  // namespace dovetail::nn
