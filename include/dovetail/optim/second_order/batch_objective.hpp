// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/core/parameters.hpp>

namespace dovetail::optim {

/// A model's loss on one batch as an `objective` (optim/second_order/minimize.hpp): the mean over `count` predictions,
/// those of the batch unless all ranks together have more (then sync::summed adds up their means). The noise of dropout
/// is the same in every call. Refers to the model and the batch's memory, which must outlive it.
///
///     optim::batch_objective loss{model, everything};
///     optim::minimize(loss, model.parameters(), optim::lbfgs{});
template <class Model>
struct batch_objective {
  Model& model;
  dovetail::data::batch data;
  std::int64_t count = 0;  ///< 0: as many as the model says, or else as the batch has targets
  gradient_pass pass = {};

  /// `parameters` must be the model's own.
  double operator()(parameter_list&) {
    auto const n = count > 0 ? count : model_traits<Model>::predictions(model, data, targets());
    pass.scale = 1 / static_cast<float>(n > 0 ? n : 1);
    return model.gradients(data, pass).loss / static_cast<double>(n > 0 ? n : 1);
  }

 private:
  std::int64_t targets() const {
    return static_cast<std::int64_t>(data.targets.empty() ? data.target_values.size() : data.targets.size());
  }
};
template <class Model, class... Rest>
batch_objective(Model&, Rest...) -> batch_objective<Model>;

}  // namespace dovetail::optim
