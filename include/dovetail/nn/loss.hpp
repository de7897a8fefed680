// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstdint>
#include <span>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/shape.hpp>

namespace dovetail::nn {

/// What a loss sees: one row of `classes` logits per prediction, with its target, and room for the row's gradient.
/// Sequence models predict at every position; rows then come position by position, as the network holds them.
struct predictions {
  float const* logits = nullptr;
  float* gradients = nullptr;  ///< null when only the loss is wanted
  std::span<std::int32_t const> targets;
  std::int64_t samples = 0, positions = 1, classes = 0;

  std::int64_t rows() const { return samples * positions; }
  std::int64_t sample(std::int64_t row) const { return row % samples; }
  std::int64_t position(std::int64_t row) const { return row / samples; }
  std::int32_t target(std::int64_t row) const {
    return targets[static_cast<std::size_t>(sample(row) * positions + position(row))];
  }
  std::span<float const> row(std::int64_t r) const { return {logits + r * classes, static_cast<std::size_t>(classes)}; }
  std::span<float> gradient(std::int64_t r) const {
    return {gradients + r * classes, static_cast<std::size_t>(classes)};
  }
};

/// A loss is a value that sums over predictions and, where p.gradients is not null, writes scale × d(sum)/d(logits).
/// It may also refuse an output shape at compile time: `static constexpr bool fits(shape)`.
template <class L>
concept loss = requires(L const l, predictions const& p, float scale) {
  { l(p, scale) } -> std::convertible_to<loss_sums>;
};

}  // namespace dovetail::nn
