// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/step_result.hpp>

namespace dovetail::optim {

/// How a loss scale moves; the defaults are PyTorch's GradScaler's. A static scale: growth and backoff 1.
struct loss_scale_options {
  double initial = 65536;        ///< factor of the first losses
  double growth = 2;             ///< after `interval` steps in a row that were not skipped
  double backoff = 0.5;          ///< after a skipped step
  std::int64_t interval = 2000;  ///< steps without a skip before it grows
  double largest = 0x1p127;      ///< growth stops here
};

/// Keeps the gradients of a half-precision backward pass away from zero and from overflow: losses are multiplied by
/// `value`, gradients divided again in the step's first load; a step whose gradient was not finite is skipped, and the
/// scale falls (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2). The rule must be able to skip:
///
///     optim::chain rule{optim::skip_non_finite{}, optim::adamw{}};
///     …backward with gradient_pass{.scale = scale.value() / samples}…
///     scale.update(rule.step(parameters, state, scale.undo()));
class loss_scale {
 public:
  /// Throws argument_error for a scale that is not positive, growth below 1, or backoff outside (0, 1].
  explicit loss_scale(loss_scale_options const& options = {}) : options_(options), value_(options.initial) {
    require(options.initial > 0 && options.growth >= 1 && options.backoff > 0 && options.backoff <= 1 &&
                options.interval > 0,
            "loss_scale: initial ", options.initial, ", growth ", options.growth, ", backoff ", options.backoff,
            ", interval ", options.interval, ": they must be positive, growth at least and backoff at most 1");
  }

  float value() const { return static_cast<float>(value_); }
  /// The parameters' own gradients divided by the scale.
  gradient::scaled undo() const { return {static_cast<float>(1 / value_)}; }
  /// Takes in what a step did; true if the scale has changed.
  bool update(step_result const& r) {
    double const before = value_;
    if (r.skipped) {
      value_ *= options_.backoff;
      good_ = 0;
    } else if (++good_ == options_.interval) {
      good_ = 0;
      if (value_ * options_.growth <= options_.largest) value_ *= options_.growth;
    }
    require<numeric_error>(value_ > 0x1p-100, "loss_scale: every step is skipped, at a scale of ", value_,
                           " too: the gradients themselves are not finite");
    return value_ != before;
  }
  /// Scale and count, to be saved and loaded.
  std::vector<named_tensor> tensors(std::string const& prefix) {
    return {make_named_tensor(prefix + "loss_scale", value_), make_named_tensor(prefix + "good_steps", good_)};
  }

 private:
  loss_scale_options options_;
  double value_;
  std::int64_t good_ = 0;
};

}  // namespace dovetail::optim
