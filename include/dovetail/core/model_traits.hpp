// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>

// The only place that looks at what a model may have beside what concepts.hpp asks of it:
//
//   loss_sums evaluate(data::batch const&, int threads)    the losses alone, without gradients and noise: what
//                                                    trainer.evaluate needs; without it a model is trained only
//   predict(data::batch const&, int threads)               outputs without noise; optim::sam passes it on as it is
//   static constexpr bool evaluates = ...            of a model around another one whose `evaluate` has a constraint:
//                                                    whether it is met; default: true if there is an `evaluate`
//   static constexpr bool acquires = true            it calls gradient_pass::acquire and release around what reads
//                                                    weights, which sync::fully_sharded needs; default: false

namespace dovetail {

namespace detail::model_members {
DOVETAIL_MEMBER(evaluate)
DOVETAIL_MEMBER_CONSTANT(evaluates)
DOVETAIL_MEMBER_CONSTANT(acquires)
}  // namespace detail::model_members

template <class Model, class Batch = data::batch>
struct model_traits {
  static constexpr bool evaluates = requires(Model & m, Batch const& b, int threads) {
    { m.evaluate(b, threads) } -> std::convertible_to<loss_sums>;
  };
  static constexpr bool acquires = detail::model_members::acquires_or<Model>(false);
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
  DOVETAIL_REQUIRE(says, "the model's `evaluates` is not `static constexpr bool evaluates = ...`", Model);
  static constexpr bool acquires = !model_members::acquires_misfits<Model, bool>();
  DOVETAIL_REQUIRE(acquires, "the model's `acquires` is not `static constexpr bool acquires = ...`", Model);
  DOVETAIL_REQUIRE(!says || evaluate,
                   "the model's `evaluate` cannot be called as `loss_sums evaluate(data::batch const&, int threads)`",
                   Model);
  static constexpr bool holds = says && evaluate && acquires;
};

}  // namespace detail

}  // namespace dovetail
