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

}  // namespace dovetail::data
