// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>

namespace dovetail::nn {

/// What a loss sees: one row of `classes` logits per prediction, with its target, and room for the row's gradient.
/// Sequence models predict at every position; rows then come position by position, as the network holds them. Where
/// targets are numbers, each logit is a prediction of its own, and `classes` how many there are in a row.
struct predictions {
  float const* logits = nullptr;
  float* gradients = nullptr;  ///< null when only the loss is wanted
  std::span<std::int32_t const> targets;
  std::int64_t samples = 0, positions = 1, classes = 0;
  std::span<float const> target_values{}, weights{};
  std::span<std::int32_t const> lengths{};

  std::int64_t rows() const { return samples * positions; }
  std::int64_t sample(std::int64_t row) const { return row % samples; }
  std::int64_t position(std::int64_t row) const { return row / samples; }
  std::int32_t target(std::int64_t row) const { return targets[place(row)]; }
  /// That of output j of a row.
  float target_value(std::int64_t row, std::int64_t j) const { return target_values[place(row, j)]; }
  /// What the row's loss and gradient are multiplied with; 0 if there is no such prediction.
  float weight(std::int64_t row) const { return !reached(row) ? 0.f : weights.empty() ? 1.f : weights[place(row)]; }
  float weight(std::int64_t row, std::int64_t j) const {
    return !reached(row) ? 0.f : weights.empty() ? 1.f : weights[place(row, j)];
  }
  std::span<float const> row(std::int64_t r) const { return {logits + r * classes, static_cast<std::size_t>(classes)}; }
  std::span<float> gradient(std::int64_t r) const {
    return {gradients + r * classes, static_cast<std::size_t>(classes)};
  }

 private:
  /// Where the caller's order has it: sample by sample.
  std::size_t place(std::int64_t row) const {
    return static_cast<std::size_t>(sample(row) * positions + position(row));
  }
  std::size_t place(std::int64_t row, std::int64_t j) const {
    return place(row) * static_cast<std::size_t>(classes) + static_cast<std::size_t>(j);
  }
  bool reached(std::int64_t row) const {
    return lengths.empty() || position(row) < lengths[static_cast<std::size_t>(sample(row))];
  }
};

/// A loss is a value that sums weight × loss over predictions and, where p.gradients is not null, writes scale × weight
/// × d(loss)/d(logits), for each of them. A prediction of weight 0 is none: it is not counted, and its gradient is 0
/// whatever its logits and target are. A loss may also have
///   static constexpr bool fits(shape const&)       refuses an output shape when it is compiled     default: fits any
///   static constexpr bool takes_values             targets are numbers, one per output, each a prediction of its own:
///                                                  it reads target_values, not targets             default: false
///   ignore_index                                   a target that is no prediction: convertible to
///                                                  std::optional<std::int32_t>                     default: none is
///   void curvature(predictions const&, float scale, float const* v, float* out) const
///                                                  writes scale H v, see nn::curved_loss           default: none
///   static constexpr bool is_log_likelihood        of an exponential family, see nn::fisher        default: false
/// A member of these names that cannot be used so is refused.
template <class L>
concept loss = requires(L const l, predictions const& p, float scale) {
  { l(p, scale) } -> std::convertible_to<loss_sums>;
};

namespace detail::loss_members {
DOVETAIL_MEMBER(fits)
DOVETAIL_MEMBER(curvature)
DOVETAIL_MEMBER(ignore_index)
DOVETAIL_MEMBER_CONSTANT(takes_values)
DOVETAIL_MEMBER_CONSTANT(is_log_likelihood)
}  // namespace detail::loss_members

/// The only place that looks at the members of losses: the answers of all questions that are asked of one.
template <class L>
struct loss_traits {
  static constexpr bool has_fits = requires(shape const& output) {
    { L::fits(output) } -> std::same_as<bool>;
  };
  static constexpr bool has_curvature =
      requires(L const& l, predictions const& p, float scale, float const* v, float* out) {
    l.curvature(p, scale, v, out);
  };
  static constexpr bool has_ignore_index = requires(L const& l) {
    { l.ignore_index } -> std::convertible_to<std::optional<std::int32_t>>;
  };
  static constexpr bool takes_values = detail::loss_members::takes_values_or<L>(false);
  static constexpr bool is_log_likelihood = detail::loss_members::is_log_likelihood_or<L>(false);

  static std::optional<std::int32_t> ignore_index(L const& l) {
    if constexpr (has_ignore_index)
      return l.ignore_index;
    else
      return {};
  }

  static constexpr bool fits(shape const& output) {
    if constexpr (has_fits)
      return L::fits(output);
    else
      return true;
  }
};

namespace detail {

/// Refuses what is no loss, and one with a member that would be left out.
template <class L>
struct must_be_a_loss {
  using traits = loss_traits<L>;
  static constexpr bool fits = traits::has_fits || !loss_members::has_fits<L>;
  static constexpr bool curvature = traits::has_curvature || !loss_members::has_curvature<L>;
  static constexpr bool ignored = traits::has_ignore_index || !loss_members::has_ignore_index<L>;
  static constexpr bool values = !loss_members::takes_values_misfits<L, bool>();
  static constexpr bool likelihood = !loss_members::is_log_likelihood_misfits<L, bool>();
  DOVETAIL_REQUIRE(loss<L>,
                   "this is not a loss: it cannot be called as `loss_sums operator()(predictions const&, float scale) "
                   "const`",
                   L);
  DOVETAIL_REQUIRE(fits, "the loss's `fits` cannot be called as `static constexpr bool fits(shape const& output)`", L);
  DOVETAIL_REQUIRE(
      curvature,
      "the loss's `curvature` cannot be called as `curvature(predictions const&, float scale, float const* "
      "v, float* out) const`",
      L);
  DOVETAIL_REQUIRE(likelihood, "the loss's `is_log_likelihood` is not `static constexpr bool is_log_likelihood = ...`",
                   L);
  DOVETAIL_REQUIRE(ignored, "the loss's `ignore_index` is no member that std::optional<std::int32_t> can be made of",
                   L);
  DOVETAIL_REQUIRE(values, "the loss's `takes_values` is not `static constexpr bool takes_values = ...`", L);
  static constexpr bool one_kind = !(traits::takes_values && traits::has_ignore_index);
  DOVETAIL_REQUIRE(one_kind, "the loss's `ignore_index` is one of integers, and it says that it takes values", L);
  static constexpr bool holds = loss<L> && fits && curvature && ignored && values && likelihood && one_kind;
};

}  // namespace detail

}  // namespace dovetail::nn
