// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>

#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>

// What becomes of a rate that was tuned at one batch size when the batch is another one. Batches are those of all ranks
// together. docs/large_batch.md shows what each does.

namespace dovetail::optim {

namespace detail {
/// How many times the batch it was tuned at; throws argument_error unless both are positive.
constexpr double batch_factor(std::int64_t tuned, std::int64_t batch) {
  if (tuned <= 0 || batch <= 0)
    require(false, "batch scaling: tuned at a batch of ", tuned, ", asked for one of ", batch,
            ": both must be positive");
  return static_cast<double>(batch) / static_cast<double>(tuned);
}
}  // namespace detail

/// rate × k for a batch k times as large (Goyal et al., 2017, section 2.1): k small steps in one. Wants a warm-up.
///
///     optim::linear_scaling const tuned{.rate = 0.1f, .batch = 256};
///     optim::momentum const opt{.lr = optim::warmup{.steps = 500, .then = optim::constant{tuned(8192)}}};
struct linear_scaling {
  float rate = 0.1f;
  std::int64_t batch = 256;
  static constexpr auto describe() {
    return policy{"linear_scaling", field{"rate", &linear_scaling::rate, ranges::not_negative},
                  field{"batch", &linear_scaling::batch, ranges::count}};
  }
  constexpr float operator()(std::int64_t new_batch) const {
    check_policy(*this);
    return static_cast<float>(static_cast<double>(rate) * detail::batch_factor(batch, new_batch));
  }
};

/// rate × sqrt(k) for a batch k times as large (Krizhevsky, 2014, section 5): the noise of a step keeps its size. What
/// LAMB is scaled by (You et al., ICLR 2020, section 4).
struct sqrt_scaling {
  float rate = 1e-3f;
  std::int64_t batch = 256;
  static constexpr auto describe() {
    return policy{"sqrt_scaling", field{"rate", &sqrt_scaling::rate, ranges::not_negative},
                  field{"batch", &sqrt_scaling::batch, ranges::count}};
  }
  float operator()(std::int64_t new_batch) const {
    check_policy(*this);
    return static_cast<float>(static_cast<double>(rate) * std::sqrt(detail::batch_factor(batch, new_batch)));
  }
};

/// Linear-epoch gradual warm-up (You et al., SC 2019): for a batch k times as large rate × sqrt(k), behind a warm-up of
/// k times as many epochs. Those have a k-th of the steps: the warm-up takes as many steps as ever.
///
///     optim::legw const tuned{.rate = 0.1f, .batch = 256, .epochs = 0.2};
///     optim::lars const opt{.lr = optim::warmup{.steps = tuned.steps(8192, data.size()),
///                                                .then = optim::constant{tuned(8192)}}};
struct legw {
  float rate = 0.1f;
  std::int64_t batch = 256;
  double epochs = 0.1;  ///< of warm-up at `batch`
  static constexpr auto describe() {
    return policy{"legw", field{"rate", &legw::rate, ranges::not_negative}, field{"batch", &legw::batch, ranges::count},
                  field{"epochs", &legw::epochs, ranges::not_negative}};
  }
  float operator()(std::int64_t new_batch) const {
    check_policy(*this);
    return sqrt_scaling{rate, batch}(new_batch);
  }
  /// Epochs of warm-up.
  constexpr double epochs_at(std::int64_t new_batch) const {
    check_policy(*this);
    return epochs * detail::batch_factor(batch, new_batch);
  }
  /// Steps of warm-up, in epochs of so many samples whose last batch may be smaller.
  std::int64_t steps(std::int64_t new_batch, std::int64_t samples) const {
    double const all = epochs_at(new_batch),
                 steps = all * std::ceil(static_cast<double>(samples) / static_cast<double>(new_batch));
    require(samples >= 0 && steps < 0x1p62, "legw: ", all, " epochs of ", samples, " samples at a batch of ", new_batch,
            " are no number of steps");
    return std::llround(steps);
  }
};

}  // namespace dovetail::optim
