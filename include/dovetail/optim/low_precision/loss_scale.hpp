// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// How a loss scale moves; the defaults are PyTorch's GradScaler's. A static scale: growth and backoff 1.
struct loss_scale_options {
  double initial = 65536;        ///< factor of the first losses
  double growth = 2;             ///< after `interval` steps in a row that were not skipped
  double backoff = 0.5;          ///< after a skipped step
  std::int64_t interval = 2000;  ///< steps without a skip before it grows
  double largest = 0x1p127;      ///< growth stops here

  /// What a scale can be: a float, and its inverse too.
  static constexpr double smallest = 0x1p-100;
  static constexpr bounds range{.low = smallest, .high = 0x1p127};
  static constexpr auto describe() {
    return policy{"loss_scale",
                  field{"initial", &loss_scale_options::initial, range},
                  field{"growth", &loss_scale_options::growth, bounds{.low = 1}},
                  field{"backoff", &loss_scale_options::backoff, ranges::positive_unit},
                  field{"interval", &loss_scale_options::interval, ranges::count},
                  field{"largest", &loss_scale_options::largest, range}};
  }
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
  /// Throws argument_error for options outside their ranges.
  explicit loss_scale(loss_scale_options const& options = {}) : options_(options), value_(options.initial) {
    check_policy(options);
  }

  float value() const { return static_cast<float>(usable()); }
  /// The parameters' own gradients divided by the scale.
  gradient::scaled undo() const { return {static_cast<float>(1 / usable())}; }
  /// Takes in what a step did; true if the scale has changed. Throws numeric_error when it has become too small.
  bool update(step_result const& r) {
    double const before = usable();
    if (r.skipped) {
      value_ *= options_.backoff;
      good_ = 0;
    } else if (good_ = std::clamp<std::int64_t>(good_, 0, options_.interval - 1) + 1; good_ >= options_.interval) {
      good_ = 0;  // more than that were loaded where the interval was longer
      if (value_ * options_.growth <= options_.largest) value_ *= options_.growth;
    }
    require<numeric_error>(value_ >= smallest, "loss_scale: every step is skipped, at a scale of ", value_,
                           " too: the gradients themselves are not finite");
    return value_ != before;
  }
  /// Scale and count, to be saved and loaded.
  std::vector<named_tensor> tensors(std::string const& prefix) {
    return {make_named_tensor(prefix + "loss_scale", value_), make_named_count(prefix + "good_steps", good_)};
  }

 private:
  static constexpr double smallest = loss_scale_options::smallest;
  /// The scale, unless one was loaded that no float can be multiplied by.
  double usable() const {
    require<numeric_error>(loss_scale_options::range.holds(value_), "loss_scale: the scale is ", value_,
                           ", which is not what a loss scale saves: it lies between ", smallest, " and ",
                           loss_scale_options::range.high);
    return value_;
  }
  loss_scale_options options_;
  double value_;
  std::int64_t good_ = 0;
};

}  // namespace dovetail::optim
