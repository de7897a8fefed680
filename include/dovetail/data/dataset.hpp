// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>

namespace dovetail::data {

/// Owns the memory of one batch; a dataset fills it, `view()` lends it to a model. Used again for the next batch, it
/// allocates nothing once it has seen the largest one.
struct batch_buffer {
  std::int64_t size = 0;              ///< samples
  std::vector<float> values;          ///< size × elements per sample, row-major
  std::vector<std::int32_t> tokens;   ///< size × positions
  std::vector<std::int32_t> targets;  ///< size × predictions per sample, of classes
  std::vector<float> target_values;   ///< size × predictions per sample, of numbers
  std::vector<float> weights;         ///< size × predictions per sample; 0 leaves one out. Empty: all are 1
  std::vector<std::int32_t> lengths;  ///< size: valid positions of a sequence. Empty: all are

  /// Makes room for `samples` samples of so many values, tokens and targets each; the contents are unspecified. There
  /// are no target values, weights and lengths then: who has some makes room for them.
  void reset(std::size_t samples, std::size_t values_each, std::size_t tokens_each, std::size_t targets_each) {
    size = static_cast<std::int64_t>(samples);
    values.resize(samples * values_each);
    tokens.resize(samples * tokens_each);
    targets.resize(samples * targets_each);
    target_values.clear();
    weights.clear();
    lengths.clear();
  }
  /// Copies what `from` shows.
  void assign(dovetail::data::batch const& from) {
    auto const copy = [](auto& to, auto const& of) { to.assign(of.begin(), of.end()); };
    size = from.size;
    copy(values, from.values);
    copy(tokens, from.tokens);
    copy(targets, from.targets);
    copy(target_values, from.target_values);
    copy(weights, from.weights);
    copy(lengths, from.lengths);
  }
  /// Valid until the buffer is changed or destroyed.
  dovetail::data::batch view() const { return {size, values, tokens, targets, target_values, weights, lengths}; }
};

/// Where samples come from. `load` fills `out` with the samples of `indices` (each in [0, size())), in their order; it
/// may be called from several threads at once. Copies must be cheap, because every rank holds one: the datasets of
/// this folder share their memory.
/// A dataset may also have `std::uint64_t identity() const`, a number that is another one when its samples are others:
/// a training that goes on compares it. Without one the size alone is compared. And `bool masks() const`: whether
/// batches may come with weights or lengths, so that not all predictions count, and how many do must be found out.
template <class D>
concept dataset = std::copy_constructible<D> &&
    requires(D const& d, std::span<std::int64_t const> indices, batch_buffer& out) {
  { d.size() } -> std::convertible_to<std::int64_t>;                    // samples
  { d.predictions_per_sample() } -> std::convertible_to<std::int64_t>;  // 1 for images, T for sequences, all if masked
  d.load(indices, out);
};

/// The only place that looks at the members of datasets: what may be asked of one beyond the concept.
template <class D>
struct dataset_traits {
  static constexpr bool has_identity = requires(D const& d) {
    { d.identity() } -> std::convertible_to<std::uint64_t>;
    requires std::is_integral_v<std::remove_cvref_t<decltype(d.identity())>>;
  };
  static constexpr bool has_masks = requires(D const& d) {
    { d.masks() } -> std::convertible_to<bool>;
  };
  static bool masks(D const& d) {
    if constexpr (has_masks)
      return d.masks();
    else
      return false;
  }
};

namespace detail {

namespace dataset_members {
DOVETAIL_MEMBER(identity)
DOVETAIL_MEMBER(masks)
}  // namespace dataset_members

/// Refuses what is no dataset, and one with a member that would be left out.
template <class D>
struct must_be_a_dataset {
  static constexpr bool size = requires(D const& d) {
    { d.size() } -> std::convertible_to<std::int64_t>;
  };
  static constexpr bool predictions = requires(D const& d) {
    { d.predictions_per_sample() } -> std::convertible_to<std::int64_t>;
  };
  static constexpr bool load = requires(D const& d, std::span<std::int64_t const> indices, batch_buffer& out) {
    d.load(indices, out);
  };
  static constexpr bool identity = [] {
    if constexpr (dataset_traits<D>::has_identity)
      return true;
    else
      return !dataset_members::has_identity<D>;
  }();
  static constexpr bool masks = dataset_traits<D>::has_masks || !dataset_members::has_masks<D>;
  DOVETAIL_REQUIRE(std::copy_constructible<D>, "this is not a dataset: it cannot be copied", D);
  DOVETAIL_REQUIRE(size, "the dataset's `size` cannot be called as `std::int64_t size() const`", D);
  DOVETAIL_REQUIRE(predictions,
                   "the dataset's `predictions_per_sample` cannot be called as `std::int64_t predictions_per_sample() "
                   "const`",
                   D);
  DOVETAIL_REQUIRE(load,
                   "the dataset's `load` cannot be called as `void load(std::span<std::int64_t const> indices, "
                   "data::batch_buffer& out) const`",
                   D);
  DOVETAIL_REQUIRE(identity, "the dataset's `identity` cannot be called as `std::uint64_t identity() const`", D);
  DOVETAIL_REQUIRE(masks, "the dataset's `masks` cannot be called as `bool masks() const`", D);
  static constexpr bool holds = std::copy_constructible<D> && size && predictions && load && identity && masks;
};

}  // namespace detail

/// What d.identity() says; 0 if it has none.
template <dataset D>
std::uint64_t identity_of(D const& d) {
  static_assert(detail::must_be_a_dataset<D>::holds);
  if constexpr (dataset_traits<D>::has_identity)
    return static_cast<std::uint64_t>(d.identity());
  else
    return 0;
}

}  // namespace dovetail::data
