// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/core/batch.hpp>

namespace dovetail::data {

/// Owns the memory of one batch; a dataset fills it, `view()` lends it to a model. Used again for the next batch, it
/// allocates nothing once it has seen the largest one.
struct batch_buffer {
  std::int64_t size = 0;              ///< samples
  std::vector<float> values;          ///< size × elements per sample, row-major
  std::vector<std::int32_t> tokens;   ///< size × positions
  std::vector<std::int32_t> targets;  ///< size × predictions per sample

  /// Makes room for `samples` samples of so many values, tokens and targets each; the contents are unspecified.
  void reset(std::size_t samples, std::size_t values_each, std::size_t tokens_each, std::size_t targets_each) {
    size = static_cast<std::int64_t>(samples);
    values.resize(samples * values_each);
    tokens.resize(samples * tokens_each);
    targets.resize(samples * targets_each);
  }
  /// Valid until the buffer is changed or destroyed.
  dovetail::data::batch view() const { return {size, values, tokens, targets}; }
};

/// Where samples come from. `load` fills `out` with the samples of `indices` (each in [0, size())), in their order; it
/// may be called from several threads at once. Copies must be cheap, because every rank holds one: the datasets of
/// this folder share their memory.
/// A dataset may also have `identity()`, a number that is another one when its samples are others: a training that goes
/// on compares it. Without one the size alone is compared.
template <class D>
concept dataset = std::copy_constructible<D> &&
    requires(D const& d, std::span<std::int64_t const> indices, batch_buffer& out) {
  { d.size() } -> std::convertible_to<std::int64_t>;                    // samples
  { d.predictions_per_sample() } -> std::convertible_to<std::int64_t>;  // 1 for images, T for sequences
  d.load(indices, out);
};

/// What d.identity() says; 0 if it has none.
template <dataset D>
std::uint64_t identity_of(D const& d) {
  if constexpr (requires { d.identity(); }) {
    static_assert(std::convertible_to<decltype(d.identity()), std::uint64_t>,
                  "a dataset's identity() returns a std::uint64_t, another one when its samples are others");
    return d.identity();
  } else {
    return 0;
  }
}

}  // namespace dovetail::data
