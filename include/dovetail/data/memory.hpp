// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/data/dataset.hpp>

namespace dovetail::data {

/// Samples that the program has made itself: `values` holds elements_per_sample floats per sample, row-major, and
/// `targets` one class per sample. Throws argument_error when their sizes do not agree.
class in_memory {
 public:
  in_memory(std::vector<float> values, std::vector<std::int32_t> targets, std::int64_t elements_per_sample)
      : elements_(static_cast<std::size_t>(elements_per_sample)) {
    require(elements_per_sample >= 1, "in_memory: ", elements_per_sample, " elements per sample: give at least 1");
    // By division: a product of two sizes may overflow.
    require(values.size() % elements_ == 0 && values.size() / elements_ == targets.size(),
            "in_memory: ", targets.size(), " targets × ", elements_per_sample, " elements per sample are not the ",
            values.size(), " values that there are");
    auto const identity =
        fingerprint{}.add(std::as_bytes(std::span(values))).add(std::as_bytes(std::span(targets))).value();
    shared_ = std::make_shared<storage const>(storage{std::move(values), std::move(targets), identity});
  }

  std::int64_t size() const { return static_cast<std::int64_t>(shared_->targets.size()); }
  std::int64_t predictions_per_sample() const { return 1; }
  /// A hash of all values and targets.
  std::uint64_t identity() const { return shared_->identity; }
  void load(std::span<std::int64_t const> indices, batch_buffer& out) const {
    out.reset(indices.size(), elements_, 0, 1);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      require(indices[i] >= 0 && indices[i] < size(), "in_memory: sample ", indices[i], " of ", size());
      auto const at = static_cast<std::size_t>(indices[i]);
      std::copy_n(shared_->values.data() + at * elements_, elements_, out.values.data() + i * elements_);
      out.targets[i] = shared_->targets[at];
    }
  }

 private:
  struct storage {
    std::vector<float> values;
    std::vector<std::int32_t> targets;
    std::uint64_t identity;
  };
  std::shared_ptr<storage const> shared_;
  std::size_t elements_;
};

/// Samples whose targets are numbers: `values` holds elements_per_sample floats per sample, row-major, `target_values`
/// outputs_per_sample, each a prediction of its own. `weights`, if there are any, has one for each of these: the loss
/// is multiplied with it, and 0 leaves the prediction out. Throws argument_error when their sizes do not agree.
class in_memory_regression {
 public:
  in_memory_regression(std::vector<float> values, std::vector<float> target_values, std::int64_t elements_per_sample,
                       std::int64_t outputs_per_sample = 1, std::vector<float> weights = {})
      : elements_(static_cast<std::size_t>(elements_per_sample)),
        outputs_(static_cast<std::size_t>(outputs_per_sample)) {
    require(elements_per_sample >= 1 && outputs_per_sample >= 1, "in_memory_regression: ", elements_per_sample,
            " elements and ", outputs_per_sample, " outputs per sample: give at least 1 of each");
    require(values.size() % elements_ == 0 && target_values.size() % outputs_ == 0 &&
                values.size() / elements_ == target_values.size() / outputs_,
            "in_memory_regression: ", values.size(), " values of ", elements_per_sample, " per sample and ",
            target_values.size(), " target values of ", outputs_per_sample, " per sample are not as many samples");
    require(weights.empty() || weights.size() == target_values.size(), "in_memory_regression: ", weights.size(),
            " weights for ", target_values.size(), " target values: give one for each, or none");
    for (float const w : weights)
      require(is_finite(w) && w >= 0, "in_memory_regression: a weight of ", w, ": they are finite, and not negative");
    auto const identity = fingerprint{}
                              .add(std::as_bytes(std::span(values)))
                              .add(std::as_bytes(std::span(target_values)))
                              .add(std::as_bytes(std::span(weights)))
                              .value();
    shared_ = std::make_shared<storage const>(
        storage{std::move(values), std::move(target_values), std::move(weights), identity});
  }

  std::int64_t size() const { return static_cast<std::int64_t>(shared_->values.size() / elements_); }
  std::int64_t predictions_per_sample() const { return static_cast<std::int64_t>(outputs_); }
  bool masks() const { return !shared_->weights.empty(); }
  /// A hash of all values, targets and weights.
  std::uint64_t identity() const { return shared_->identity; }
  void load(std::span<std::int64_t const> indices, batch_buffer& out) const {
    out.reset(indices.size(), elements_, 0, 0);
    out.target_values.resize(indices.size() * outputs_);
    if (masks()) out.weights.resize(indices.size() * outputs_);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      require(indices[i] >= 0 && indices[i] < size(), "in_memory_regression: sample ", indices[i], " of ", size());
      auto const at = static_cast<std::size_t>(indices[i]);
      auto const copy = [&](std::vector<float> const& from, std::vector<float>& to, std::size_t each) {
        if (!from.empty()) std::copy_n(from.data() + at * each, each, to.data() + i * each);
      };
      copy(shared_->values, out.values, elements_);
      copy(shared_->target_values, out.target_values, outputs_);
      copy(shared_->weights, out.weights, outputs_);
    }
  }

 private:
  struct storage {
    std::vector<float> values, target_values, weights;
    std::uint64_t identity;
  };
  std::shared_ptr<storage const> shared_;
  std::size_t elements_, outputs_;
};

}  // namespace dovetail::data
