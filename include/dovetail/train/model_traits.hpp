// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

#include <dovetail/concepts.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>

// The only place that looks at what a model may have beside what concepts.hpp asks of it:
//
//   loss_sums evaluate(batch const&, int threads)     the losses alone, without gradients and noise, for
//                                                     trainer.evaluate; without it a model is trained only

namespace dovetail::train {

template <class Model>
struct model_traits {
  static constexpr bool evaluates = evaluable<Model>;
};

namespace detail {

namespace model_members {
DOVETAIL_MEMBER(evaluate)
}  // namespace model_members

/// Refuses what is no model, and one with a member that would be left out.
template <class Model>
struct must_be_a_model {
  static constexpr bool evaluate = [] {
    if constexpr (model_traits<Model>::evaluates)
      return true;
    else
      return !model_members::has_evaluate<Model>;
  }();
  DOVETAIL_REQUIRE(model<Model>,
                   "is no model: it needs parameters() -> parameter_list& and gradients(batch, gradient_pass) -> "
                   "loss_sums (see concepts.hpp); a network is followed by its loss: trainer{network, loss, optimizer, "
                   "synchronizer, world}",
                   Model);
  DOVETAIL_REQUIRE(!model<Model> || evaluate,
                   "the model's `evaluate` cannot be called as `loss_sums evaluate(batch const&, int threads)`", Model);
  static constexpr bool holds = model<Model> && evaluate;
};

}  // namespace detail

}  // namespace dovetail::train
