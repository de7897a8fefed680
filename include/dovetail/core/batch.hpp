// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include <dovetail/core/philox.hpp>
#include <dovetail/core/shard.hpp>

/// What of data all folders know: a name of data/ that core has, because `batch` is what a program that says
/// `using namespace dovetail` calls a variable of its own.
namespace dovetail::data {

/// A view of one rank's share of a batch: `size` samples, row-major. Images and features come as `values`
/// (size × elements per sample), tokens as `tokens` (size × positions). What is to be predicted are classes or numbers:
/// `targets` holds one class per prediction, one per sample for a classifier and one per position for a sequence model;
/// `target_values` one float per output of the network. Predictions may be left out: by a weight of 0, and in sequences
/// by their place, from `lengths` on. Then their targets may be anything.
struct batch {
  std::int64_t size = 0;
  std::span<float const> values;
  std::span<std::int32_t const> tokens;
  std::span<std::int32_t const> targets;
  std::span<float const> target_values{};   ///< size × outputs
  std::span<float const> weights{};         ///< one per prediction, as targets or target_values; empty: all are 1
  std::span<std::int32_t const> lengths{};  ///< one per sample, of its valid positions; empty: all positions are
};

}  // namespace dovetail::data

namespace dovetail {

/// What backward knows of a layer y = x W^T + b beyond its gradients: from these, second-order rules learn how weights
/// interact. `rows` pairs of an input and the gradient of the output; a convolution's inputs are its patches.
template <class T>
struct basic_kfac_statistics {
  std::size_t first = 0;  ///< flat index of W {out, in}; a bias {out} may lie behind it
  std::int64_t rows = 0, in = 0, out = 0;
  T const* inputs = nullptr;            ///< rows × in
  T const* output_gradients = nullptr;  ///< rows × out: scale × d(loss)/dy
  float scale = 1;                      ///< the pass's
  std::int64_t positions = 1;           ///< rows that belong to one prediction: the pixels of a convolution
};
using kfac_statistics = basic_kfac_statistics<float>;  ///< what networks show

/// What one evaluation of gradients is told by its caller.
struct gradient_pass {
  float scale =
      1;  ///< gradients are `scale` × d(sum of the losses)/dw: 1/(global count) makes their sum over ranks a mean
  bool accumulate = false;  ///< add to the gradients instead of overwriting them
  std::uint64_t seed = 0;   ///< for dropout and other noise: streams (seed, tensor, step, rank)
  std::uint64_t step = 0;
  std::uint32_t rank = 0;
  int threads = 1;  ///< cores that this rank may use
  /// Called during backward, when the gradients of the parameters with flat index >= `first` are final; may stay
  /// empty. `first` falls from call to call; a model that never calls it is merely not overlapped.
  std::function<void(std::size_t first)> ready{};
  /// Where weights are divided among ranks: called before weights of this range of flat indices are read, in forward
  /// and in backward, and when they are no more; may stay empty. Collective: all ranks call them in the same order, one
  /// with an empty batch as well.
  std::function<void(range weights)> acquire{}, release{};
  /// Called during backward, before `ready`, for every layer that has factors (dense and convolutional ones of nn); may
  /// stay empty. The pointers are valid during the call.
  std::function<void(kfac_statistics const&)> observe{};
  bool updates_buffers = true;  ///< running statistics take the batch in; false for what only looks

  random_stream random(std::uint32_t tensor) const { return {seed, tensor, step, rank}; }
};

/// What one pass over a batch found: sums over the predictions that were made.
struct loss_sums {
  double loss = 0;           ///< sum of weight × loss, in nats for cross-entropy
  std::int64_t count = 0;    ///< predictions, those apart that are left out
  std::int64_t correct = 0;  ///< predictions whose arg-max was the target

  double mean() const { return count ? loss / static_cast<double>(count) : 0.0; }
  double accuracy() const { return count ? static_cast<double>(correct) / static_cast<double>(count) : 0.0; }
  loss_sums& operator+=(loss_sums const& o) {
    loss += o.loss;
    count += o.count;
    correct += o.correct;
    return *this;
  }
  friend bool operator==(loss_sums const&, loss_sums const&) = default;
};

}  // namespace dovetail
