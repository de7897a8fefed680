// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/loader.hpp>

namespace dovetail::train {

/// How many predictions of a rank's part of a step count, which is needed before the first backward: its micro-batches
/// are weighed by the whole step's. Where data or loss leave some out, they are loaded ahead and counted by the model;
/// otherwise all count, and a batch in which they do not is refused. Refers to the model and the data.
template <class Model, class Dataset>
class step_predictions {
  using traits = model_traits<Model>;

 public:
  /// Throws argument_error where predictions may be left out and the model cannot count.
  DOVETAIL_COLD step_predictions(Model& model, Dataset const& data)
      : model_(&model), data_(&data), masked_(data::dataset_traits<Dataset>::masks(data) || traits::masks(model)) {
    require(!masked_ || traits::has_predictions,
            "fit: the data say masks(), and the model has no `predictions(data::batch const&)`: the mean over the "
            "predictions that count needs their number");
  }
  /// Whether some may be left out.
  bool masked() const { return masked_; }

  /// Where some may be left out: the step's micro-batches, each from next(), and how many of their predictions count.
  template <class Next>
  DOVETAIL_COLD std::int64_t load(std::int64_t micro_batches, Next const& next) {
    std::int64_t count = 0;
    loaded_.resize(static_cast<std::size_t>(micro_batches));
    for (auto& one : loaded_) {
      one.batch = next();
      if (&one != &loaded_.back()) {  // the loader's own memory holds until the next batch is asked for
        one.memory.assign(one.batch.view);
        one.batch.view = one.memory.view();
      }
      count += traits::predictions(*model_, std::as_const(one.batch.view), 0);
    }
    return count;
  }
  data::loaded_batch const& loaded(std::int64_t micro_batch) const {
    return loaded_[static_cast<std::size_t>(micro_batch)].batch;
  }
  /// Where nobody says that some may be left out, none may be. Throws argument_error.
  DOVETAIL_COLD void check(data::batch const& b) {
    if (masked_) return;
    std::int64_t const all = b.size * static_cast<std::int64_t>(data_->predictions_per_sample());
    std::int64_t const count = b.weights.empty() && b.lengths.empty() ? traits::predictions(*model_, b, all) : -1;
    require(count == all, "fit: a batch of ", b.size, " samples ",
            count < 0 ? "has weights or lengths"
                      : message("has ", count,
                                " predictions that count, where the data's predictions_per_sample gives ", all),
            ", and the data do not say that predictions may be left out: give the dataset `bool masks() const` that "
            "returns true, or the right predictions_per_sample");
  }

 private:
  struct loaded_ahead {
    data::batch_buffer memory;
    data::loaded_batch batch;
  };
  Model* model_;
  Dataset const* data_;
  bool masked_;
  std::vector<loaded_ahead> loaded_;
};

}  // namespace dovetail::train
