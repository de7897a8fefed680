// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
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

  static constexpr bool acquires = requires { requires Network::acquires; };

  parameter_list& parameters() { return network.parameters(); }
  parameter_list const& parameters() const { return network.parameters(); }

  static constexpr bool buffered = Network::buffer_count > 0;
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

  /// How many predictions of a batch count: those of weight 0, beyond the lengths and with an ignored target do not.
  DOVETAIL_COLD std::int64_t predictions(data::batch const& b) const {
    check(b);
    auto const ignored = loss_traits<Loss>::ignore_index(loss);
    std::int64_t n = 0;
    if (b.weights.empty() && b.lengths.empty() && !ignored) return b.size * per_sample;
    std::size_t i = 0;
    for (std::int64_t s = 0; s < b.size; ++s)
      for (std::int64_t k = 0; k < per_sample; ++k, ++i) {
        bool const here = b.lengths.empty() || k / per_position < b.lengths[static_cast<std::size_t>(s)];
        n += here && (b.weights.empty() || b.weights[i] != 0) && !(ignored && b.targets[i] == *ignored);
      }
    return n;
  }
  /// Whether predictions may be left out of batches without weights and lengths: where the loss ignores a target.
  bool masks() const { return loss_traits<Loss>::ignore_index(loss).has_value(); }

  /// Throws argument_error, or input_error, for a batch that does not have what the loss reads.
  DOVETAIL_COLD static void check(data::batch const& b) {
    constexpr bool values = loss_traits<Loss>::takes_values;
    auto const given = values ? b.target_values.size() : b.targets.size();
    auto const n = static_cast<std::size_t>(b.size * per_sample);
    require(given == n, "with_loss: a batch of ", b.size, " samples needs ", n, values ? " target_values" : " targets",
            ", it has ", given, ": ",
            values                    ? "one per output"
            : Network::positions == 1 ? "one per sample"
                                      : "one per position of the sequence");
    check_masks(b);
  }
  /// The same of weights and lengths alone.
  DOVETAIL_COLD static void check_masks(data::batch const& b) {
    auto const n = static_cast<std::size_t>(b.size * per_sample);
    require(b.weights.empty() || b.weights.size() == n, "with_loss: a batch of ", b.size, " samples has ",
            b.weights.size(), " weights and ", n, " predictions: give one for each, or none");
    require(b.lengths.empty() || b.lengths.size() == static_cast<std::size_t>(b.size), "with_loss: a batch of ", b.size,
            " samples has ", b.lengths.size(), " lengths: give one for each, or none");
    for (auto const length : b.lengths)
      require<input_error>(length >= 0 && length <= Network::positions, "with_loss: a sample has length ", length,
                           ", of ", Network::positions, " positions");
    for (float const weight : b.weights)
      require<input_error>(is_finite(weight) && weight >= 0, "with_loss: a prediction has weight ", weight,
                           ": weights are finite, and not negative");
  }

 private:
  static constexpr std::int64_t per_position = loss_traits<Loss>::takes_values ? width(Network::output_shape) : 1,
                                per_sample = Network::positions * per_position;
};

}  // namespace dovetail::nn
