// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::optim {

/// Which way a measurement gets better.
enum class better : std::uint8_t { lower, higher };

/// How reduce_on_plateau reacts; the defaults are PyTorch's.
struct plateau_options {
  float initial = 1e-3f;             ///< rate of the first step
  float factor = 0.1f;               ///< what the rate is multiplied by
  std::int64_t patience = 10;        ///< measurements without progress that are borne; one more lowers the rate
  float threshold = 1e-4f;           ///< progress is more than this share of the best
  std::int64_t cooldown = 0;         ///< measurements behind a reduction that count for nothing
  float smallest = 0;                ///< the rate never falls below
  better direction = better::lower;  ///< of the measurement

  static constexpr auto describe() {
    return policy{"reduce_on_plateau",
                  field{"initial", &plateau_options::initial, ranges::not_negative},
                  field{"factor", &plateau_options::factor, bounds{.low = 0, .high = 1, .above = true, .below = true}},
                  field{"patience", &plateau_options::patience, ranges::not_negative},
                  field{"threshold", &plateau_options::threshold, ranges::not_negative},
                  field{"cooldown", &plateau_options::cooldown, ranges::not_negative},
                  field{"smallest", &plateau_options::smallest, ranges::not_negative},
                  field{"direction", &plateau_options::direction, "lower higher"}};
  }
};

/// A learning rate that falls when a measurement, such as the loss on validation data, no longer gets better
/// (PyTorch's ReduceLROnPlateau with a relative threshold: progress is more than threshold |best|, whatever its sign,
/// and also a rate below 1e-8 falls). Copies, also those inside schedules and optimizers, share
/// one rate: tell any of them what was measured, between two steps or calls of fit, the same on all processes:
///
///     optim::reduce_on_plateau rate{{.initial = 0.1f, .patience = 2}};
///     train::trainer t{model, optim::momentum{.lr = rate}, sync::all_reduce{}, comm};
///     for (int e = 1; e <= 30; ++e) {
///       t.fit(data, {.epochs = e});
///       rate.observe(t.evaluate(validation).mean());
///     }
class reduce_on_plateau {
 public:
  /// Throws argument_error for options outside their ranges.
  explicit reduce_on_plateau(plateau_options const& options = {})
      : options_(options), state_(std::make_shared<state>()) {
    check_policy(options);
    state_->rate = static_cast<double>(options.initial);
    state_->best = worst();
  }

  float operator()(std::int64_t) const { return static_cast<float>(state_->rate); }

  /// Takes in a measurement; true if it lowered the rate. A NaN is no progress.
  bool observe(double measured) const {
    auto& s = *state_;
    check_count(s.bad, "reduce_on_plateau: the number of bad measurements");
    check_count(s.cooldown, "reduce_on_plateau: the number of measurements that count for nothing");
    if (improves(measured)) {
      s.best = measured;
      s.bad = 0;
    } else {
      ++s.bad;
    }
    if (s.cooldown > 0) {
      --s.cooldown;
      s.bad = 0;
    }
    if (s.bad <= options_.patience) return false;
    double const before = s.rate, lowered = before * static_cast<double>(options_.factor);
    double const floor = static_cast<double>(options_.smallest);
    if (double const next = lowered > floor ? lowered : floor; next < before) s.rate = next;
    s.cooldown = options_.cooldown;
    s.bad = 0;
    return s.rate < before;
  }

  /// What it has seen so far, to be saved and loaded.
  std::vector<named_tensor> tensors(std::string const& prefix) {
    return {make_named_tensor(prefix + "rate", state_->rate), make_named_tensor(prefix + "best", state_->best),
            make_named_count(prefix + "bad", state_->bad), make_named_count(prefix + "cooldown", state_->cooldown)};
  }

 private:
  struct state {
    double rate = 0, best = 0;
    std::int64_t bad = 0, cooldown = 0;
  };
  double worst() const {
    double const infinity = positive_infinity<double>();
    return options_.direction == better::lower ? infinity : -infinity;
  }
  bool improves(double const& measured) const {
    // Infinity as the largest number: it then compares, also under flags that let a compiler forget it.
    auto const number = [](double const& x) {
      constexpr double largest = std::numeric_limits<double>::max();
      return is_finite(x) ? x : std::bit_cast<std::uint64_t>(x) >> 63 ? -largest : largest;
    };
    if (is_nan(measured)) return false;
    double const best = number(state_->best), x = number(measured),
                 progress = is_finite(state_->best) ? static_cast<double>(options_.threshold) * std::abs(best) : 0;
    return options_.direction == better::lower ? x < best - progress : x > best + progress;
  }
  plateau_options options_;
  std::shared_ptr<state> state_;
};

}  // namespace dovetail::optim
