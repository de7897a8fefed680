// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstdint>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

// The only place that looks at what a model may have beside what concepts.hpp asks of it:
//
//   loss_sums evaluate(data::batch const&, int threads)    the losses alone, without gradients and noise: what
//                                                    trainer.evaluate needs; without it a model is trained only
//   std::vector<named_tensor> buffers()              what it keeps from batch to batch and does not train, such as
//                                                    running statistics: saved, and averaged over ranks
//   static constexpr bool buffered = ...             whether there are any; default: true if there is a `buffers`
//   std::int64_t predictions(data::batch const&)     how many of a batch's predictions count, without computing them:
//                                                    what the trainer divides by where some may be left out
//   bool masks()                                     whether some may be left out of batches that have no weights and
//                                                    no lengths; default: no
//   predict(data::batch const&, int threads)               outputs without noise; optim::sam passes it on as it is
//   static constexpr bool evaluates = ...            of a model around another one whose `evaluate` has a constraint:
//                                                    whether it is met; default: true if there is an `evaluate`

namespace dovetail {

namespace detail::model_members {
DOVETAIL_MEMBER(evaluate)
DOVETAIL_MEMBER(buffers)
DOVETAIL_MEMBER_CONSTANT(buffered)
DOVETAIL_MEMBER(predictions)
DOVETAIL_MEMBER(masks)
DOVETAIL_MEMBER_CONSTANT(evaluates)
}  // namespace detail::model_members

template <class Model, class Batch = data::batch>
struct model_traits {
  static constexpr bool evaluates = requires(Model & m, Batch const& b, int threads) {
    { m.evaluate(b, threads) } -> std::convertible_to<loss_sums>;
  };
  static constexpr bool lists_buffers = requires(Model & m) {
    { m.buffers() } -> std::convertible_to<std::vector<named_tensor>>;
  };
  static constexpr bool has_buffers = [] {
    if constexpr (lists_buffers)
      return detail::model_members::buffered_or<Model>(true);
    else
      return false;
  }();
  /// Its buffers; none where it says nothing of any.
  static std::vector<named_tensor> buffers(Model& m) {
    if constexpr (has_buffers)
      return m.buffers();
    else
      return {};
  }
  static constexpr bool has_predictions = requires(Model & m, Batch const& b) {
    { m.predictions(b) } -> std::convertible_to<std::int64_t>;
  };
  static constexpr bool has_masks = requires(Model & m) {
    { m.masks() } -> std::convertible_to<bool>;
  };
  /// What it says of a batch; `otherwise` where it says nothing.
  static std::int64_t predictions(Model& m, Batch const& b, std::int64_t otherwise) {
    if constexpr (has_predictions)
      return m.predictions(b);
    else
      return otherwise;
  }
  static bool masks(Model& m) {
    if constexpr (has_masks)
      return m.masks();
    else
      return false;
  }
  static constexpr bool predicts = requires(Model & m, Batch const& b, int threads) { m.predict(b, threads); };
};

namespace detail {

/// Refuses a model with a member that would be left out.
template <class Model>
struct must_be_a_model {
  static constexpr bool says = !model_members::evaluates_misfits<Model, bool>();
  static constexpr bool evaluate = [] {
    if constexpr (model_traits<Model>::evaluates)
      return true;
    else if constexpr (model_members::evaluates_fits<Model, bool>)
      return !model_members::evaluates_or<Model>(true);
    else
      return !model_members::has_evaluate<Model>;
  }();
  static constexpr bool buffers = [] {
    if constexpr (model_traits<Model>::lists_buffers)
      return true;
    else
      return !model_members::has_buffers<Model>;
  }();
  static constexpr bool buffered = !model_members::buffered_misfits<Model, bool>();
  static constexpr bool predictions = model_traits<Model>::has_predictions || !model_members::has_predictions<Model>;
  static constexpr bool masks = model_traits<Model>::has_masks || !model_members::has_masks<Model>;
  static constexpr bool counts = !model_traits<Model>::has_masks || model_traits<Model>::has_predictions;
  DOVETAIL_REQUIRE(says, "the model's `evaluates` is not `static constexpr bool evaluates = ...`", Model);
  DOVETAIL_REQUIRE(!says || evaluate,
                   "the model's `evaluate` cannot be called as `loss_sums evaluate(data::batch const&, int threads)`",
                   Model);
  DOVETAIL_REQUIRE(buffers, "the model's `buffers` cannot be called as `std::vector<named_tensor> buffers()`", Model);
  DOVETAIL_REQUIRE(buffered, "the model's `buffered` is not `static constexpr bool buffered = ...`", Model);
  DOVETAIL_REQUIRE(predictions,
                   "the model's `predictions` cannot be called as `std::int64_t predictions(data::batch const&)`",
                   Model);
  DOVETAIL_REQUIRE(masks, "the model's `masks` cannot be called as `bool masks()`", Model);
  DOVETAIL_REQUIRE(counts, "a model with `masks` also has `std::int64_t predictions(data::batch const&)`", Model);
  static constexpr bool holds = says && evaluate && buffers && buffered && predictions && masks && counts;
};

}  // namespace detail

}  // namespace dovetail
