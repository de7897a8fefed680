// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <type_traits>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/schedules/schedule.hpp>

// Learning rates as functions of the step. A schedule is called with the number of steps already applied: the first
// step of a training uses schedule(0). A skipped step does not count. Each throws argument_error for fields that it
// cannot work with, both where it becomes a rate and when it is called.

namespace dovetail::optim {

/// Always the same rate.
struct constant {
  float value = 1e-3f;  ///< the rate
  static constexpr auto describe() {
    return policy{"constant", field{"value", &constant::value, ranges::not_negative}};
  }
  constexpr float operator()(std::int64_t) const {
    check_policy(*this);
    return value;
  }
};

/// initial × factor^floor(step / every).
struct step_decay {
  float initial = 0.1f;    ///< rate of the first step
  float factor = 0.1f;     ///< of each drop
  std::int64_t every = 1;  ///< steps from one drop to the next
  static constexpr auto describe() {
    return policy{"step_decay", field{"initial", &step_decay::initial, ranges::not_negative},
                  field{"factor", &step_decay::factor, ranges::not_negative},
                  field{"every", &step_decay::every, ranges::count}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    return static_cast<float>(static_cast<double>(initial) *
                              std::pow(static_cast<double>(factor), static_cast<double>(step / every)));
  }
};

/// From `from` at step 0 in a straight line to `to` at step `steps`, and `to` from then on.
struct linear {
  float from = 1e-3f, to = 0;  ///< rates at both ends
  std::int64_t steps = 1;      ///< from one end to the other
  static constexpr auto describe() {
    return policy{"linear", field{"from", &linear::from, ranges::not_negative},
                  field{"to", &linear::to, ranges::not_negative}, field{"steps", &linear::steps, ranges::not_negative}};
  }
  constexpr float operator()(std::int64_t step) const {
    check_policy(*this);
    if (step >= steps) return to;
    double const x = static_cast<double>(step) / static_cast<double>(steps);
    return static_cast<float>(static_cast<double>(from) + (static_cast<double>(to) - static_cast<double>(from)) * x);
  }
};

/// Half a cosine wave from `initial` at step 0 to `final` at step `steps`, and `final` from then on
/// (Loshchilov & Hutter, SGDR, ICLR 2017, equation 5 without restarts).
struct cosine {
  float initial = 1e-3f;   ///< rate of the first step
  std::int64_t steps = 1;  ///< until `final` is reached
  float final = 0;         ///< rate from then on
  static constexpr auto describe() {
    return policy{"cosine", field{"initial", &cosine::initial, ranges::not_negative},
                  field{"steps", &cosine::steps, ranges::not_negative},
                  field{"final", &cosine::final, ranges::not_negative}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    if (step >= steps) return final;
    double const x = static_cast<double>(step) / static_cast<double>(steps);
    return static_cast<float>(static_cast<double>(final) + (static_cast<double>(initial) - static_cast<double>(final)) *
                                                               0.5 * (1 + std::cos(std::numbers::pi * x)));
  }
};

/// initial × factor^(step / every). With every 1 it is PyTorch's ExponentialLR; SINGA and optax have it as well.
struct exponential {
  float initial = 0.1f;    ///< rate of the first step
  float factor = 0.95f;    ///< over `every` steps
  std::int64_t every = 1;  ///< steps that `factor` is meant for
  static constexpr auto describe() {
    return policy{"exponential", field{"initial", &exponential::initial, ranges::not_negative},
                  field{"factor", &exponential::factor, ranges::not_negative},
                  field{"every", &exponential::every, ranges::count}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    double const x = static_cast<double>(step) / static_cast<double>(every);
    return static_cast<float>(static_cast<double>(initial) * std::pow(static_cast<double>(factor), x));
  }
};

/// From `from` at step 0 to `to` at step `steps` as the power `power` of what is left, and `to` from then on.
struct polynomial {
  float from = 1e-3f, to = 0;  ///< rates at both ends
  std::int64_t steps = 1;      ///< from one end to the other
  float power = 1;             ///< 1: a straight line; more: lands more softly
  static constexpr auto describe() {
    return policy{"polynomial", field{"from", &polynomial::from, ranges::not_negative},
                  field{"to", &polynomial::to, ranges::not_negative},
                  field{"steps", &polynomial::steps, ranges::not_negative},
                  field{"power", &polynomial::power, ranges::not_negative}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    if (step >= steps) return to;
    double const left = 1 - static_cast<double>(step) / static_cast<double>(steps);
    return static_cast<float>(static_cast<double>(to) + (static_cast<double>(from) - static_cast<double>(to)) *
                                                            std::pow(left, static_cast<double>(power)));
  }
};

/// initial / (1 + decay × step)^power. With power 1 it is PyTorch's lr_decay of AdaGrad and SINGA's kInverseT, with
/// another one Caffe's and SINGA's kInverse.
struct inverse_time {
  float initial = 0.1f;  ///< rate of the first step
  float decay = 1e-4f;   ///< per step
  float power = 1;       ///< of the fall
  static constexpr auto describe() {
    return policy{"inverse_time", field{"initial", &inverse_time::initial, ranges::not_negative},
                  field{"decay", &inverse_time::decay, ranges::not_negative},
                  field{"power", &inverse_time::power, ranges::not_negative}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    double const base = 1 + static_cast<double>(decay) * static_cast<double>(step);
    return static_cast<float>(static_cast<double>(initial) * std::pow(base, -static_cast<double>(power)));
  }
};

/// peak × sqrt(steps / max(step, steps)), flat over the first `steps` steps. Times min(1, (step + 1) / steps) it is the
/// schedule of the Transformer (Vaswani et al., NeurIPS 2017, section 5.3); behind warmup it would count from 0 again
/// and stay flat for as long.
struct inverse_sqrt {
  float peak = 1e-3f;      ///< rate of the first step
  std::int64_t steps = 1;  ///< before it falls
  static constexpr auto describe() {
    return policy{"inverse_sqrt", field{"peak", &inverse_sqrt::peak, ranges::not_negative},
                  field{"steps", &inverse_sqrt::steps, ranges::count}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    double const at = static_cast<double>(step > steps ? step : steps);
    return static_cast<float>(static_cast<double>(peak) * std::sqrt(static_cast<double>(steps) / at));
  }
};

/// Half cosine waves from `initial` to `final`, the first of `steps` steps, each `growth` times as long as the one
/// before (Loshchilov & Hutter, SGDR, ICLR 2017, equation 5).
struct warm_restarts {
  float initial = 1e-3f;    ///< rate at the beginning of each wave
  std::int64_t steps = 10;  ///< of the first wave
  std::int64_t growth = 1;  ///< factor of the length of a wave
  float final = 0;          ///< rate that each wave falls to
  static constexpr auto describe() {
    return policy{"warm_restarts", field{"initial", &warm_restarts::initial, ranges::not_negative},
                  field{"steps", &warm_restarts::steps, ranges::count},
                  field{"growth", &warm_restarts::growth, ranges::count},
                  field{"final", &warm_restarts::final, ranges::not_negative}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    std::int64_t length = steps;
    if (growth <= 1)
      step %= length;
    else
      for (; step >= length; length = longer(length)) step -= length;
    double const x = static_cast<double>(step) / static_cast<double>(length);
    return static_cast<float>(static_cast<double>(final) + (static_cast<double>(initial) - static_cast<double>(final)) *
                                                               0.5 * (1 + std::cos(std::numbers::pi * x)));
  }

 private:
  /// As many steps as there are, where more would be asked for.
  constexpr std::int64_t longer(std::int64_t length) const {
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    return length > most / growth ? most : length * growth;
  }
};

/// Between `low` and `high` in straight lines, `up` steps each way; each peak is `shrink` times as high above `low` as
/// the one before (Smith, Cyclical Learning Rates, WACV 2017: triangular with shrink 1, triangular2 with 1/2).
struct cyclical {
  float low = 1e-4f, high = 1e-2f;  ///< the lowest rate, and the first peak
  std::int64_t up = 2000;           ///< steps from low to high, half a cycle
  float shrink = 1;                 ///< factor of the height of each peak
  void check() const { require(low <= high, "cyclical: low is ", low, ", high ", high, ": it cannot be below"); }
  static constexpr auto describe() {
    return policy{"cyclical", field{"low", &cyclical::low, ranges::not_negative},
                  field{"high", &cyclical::high, ranges::not_negative},
                  field{"up", &cyclical::up, bounds{.low = 1, .high = 0x1p61}},
                  field{"shrink", &cyclical::shrink, ranges::not_negative}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    std::int64_t const cycle = step / (2 * up), inside = step % (2 * up);
    double const x = static_cast<double>(inside <= up ? inside : 2 * up - inside) / static_cast<double>(up);
    return static_cast<float>(static_cast<double>(low) +
                              (static_cast<double>(high) - static_cast<double>(low)) * x *
                                  std::pow(static_cast<double>(shrink), static_cast<double>(cycle)));
  }
};

/// One rise from peak / start_divisor to `peak` over the share `rise` of all steps and one fall to a final_divisor-th
/// of where it began, as half cosine waves (Smith & Topin, Super-Convergence, 2018, with PyTorch's phases).
struct one_cycle {
  float peak = 1e-2f;          ///< the highest rate
  std::int64_t steps = 100;    ///< of the whole training
  float rise = 0.3f;           ///< share of the steps until the peak
  float start_divisor = 25;    ///< the first rate is peak / start_divisor
  float final_divisor = 1e4f;  ///< the last one is the first one / final_divisor
  static constexpr auto describe() {
    return policy{"one_cycle",
                  field{"peak", &one_cycle::peak, ranges::not_negative},
                  field{"steps", &one_cycle::steps, ranges::count},
                  field{"rise", &one_cycle::rise, ranges::unit},
                  field{"start_divisor", &one_cycle::start_divisor, ranges::positive},
                  field{"final_divisor", &one_cycle::final_divisor, ranges::positive}};
  }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    double const top = static_cast<double>(rise) * static_cast<double>(steps) - 1,
                 last = static_cast<double>(steps - 1);
    double const start = static_cast<double>(peak) / static_cast<double>(start_divisor), at = static_cast<double>(step);
    if (at >= last) return static_cast<float>(start / static_cast<double>(final_divisor));
    auto const wave = [](double from, double to, double x) {
      return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * x));
    };
    return static_cast<float>(
        at <= top && top > 0
            ? wave(start, static_cast<double>(peak), at / top)
            : wave(static_cast<double>(peak), start / static_cast<double>(final_divisor), (at - top) / (last - top)));
  }
};

namespace detail {
template <class Then>
consteval bool follows_warmup() {
  DOVETAIL_REQUIRE(
      (std::is_invocable_r_v<float, Then const&, std::int64_t>),
      "what follows a warmup is a schedule, a function of the step: a rate that stays is optim::constant{1e-3f}", Then);
  return true;
}
}  // namespace detail

/// Linear warm-up, then another schedule, which starts to count behind it: during the first `steps` steps the rate
/// rises in equal parts from `from` (before the first step) to then(0) (in the last of them) (Goyal et al., 2017,
/// section 2.2).
template <class Then = constant>
struct warmup {
  static_assert(detail::follows_warmup<Then>());
  std::int64_t steps = 0;  ///< of the warm-up
  Then then{};             ///< the schedule behind it
  float from = 0;          ///< the rate that it rises from
  static constexpr auto describe() {
    return policy{"warmup", field{"steps", &warmup::steps, ranges::not_negative}, field{"then", &warmup::then},
                  field{"from", &warmup::from, ranges::not_negative}};
  }
  void check() const { check_policy(then); }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    if (step >= steps) return static_cast<float>(then(step - steps));
    double const x = static_cast<double>(step + 1) / static_cast<double>(steps);
    auto const low = static_cast<double>(from);
    return static_cast<float>(low + (static_cast<double>(then(0)) - low) * x);
  }
};
template <class Then>
warmup(std::int64_t, Then) -> warmup<Then>;
template <class Then>
warmup(std::int64_t, Then, float) -> warmup<Then>;

/// A low rate for `steps` steps, then another schedule, which starts to count behind it (He et al., CVPR 2016, section
/// 4.2: "warm up"; Goyal et al., 2017, section 2.2, constant warm-up).
template <class Then = constant>
struct constant_warmup {
  static_assert(detail::follows_warmup<Then>());
  std::int64_t steps = 0;  ///< with the low rate
  Then then{};             ///< the schedule behind them
  float rate = 1e-2f;      ///< of those steps
  static constexpr auto describe() {
    return policy{"constant_warmup", field{"steps", &constant_warmup::steps, ranges::not_negative},
                  field{"then", &constant_warmup::then}, field{"rate", &constant_warmup::rate, ranges::not_negative}};
  }
  void check() const { check_policy(then); }
  float operator()(std::int64_t step) const {
    check_policy(*this);
    return step < steps ? rate : static_cast<float>(then(step - steps));
  }
};
template <class Then>
constant_warmup(std::int64_t, Then) -> constant_warmup<Then>;
template <class Then>
constant_warmup(std::int64_t, Then, float) -> constant_warmup<Then>;

/// Schedules one after the other, each counting from 0 at its own beginning; the last one stays.
class piecewise {
 public:
  struct piece {
    std::int64_t begin = 0;
    schedule rate;
  };
  /// Throws argument_error unless the pieces begin at 0 and in rising order.
  piecewise(std::initializer_list<piece> pieces) : pieces_(pieces) {
    require(!pieces_.empty() && pieces_.front().begin == 0, "optim::piecewise: the first piece must begin at step 0");
    for (std::size_t i = 1; i < pieces_.size(); ++i)
      require(pieces_[i].begin > pieces_[i - 1].begin, "optim::piecewise: piece ", i, " begins at step ",
              pieces_[i].begin, ", the one before it at ", pieces_[i - 1].begin, ": pieces must be in rising order");
  }
  float operator()(std::int64_t step) const {
    std::size_t i = pieces_.size() - 1;
    while (i > 0 && step < pieces_[i].begin) --i;
    return pieces_[i].rate(step - pieces_[i].begin);
  }

 private:
  std::vector<piece> pieces_;
};

}  // namespace dovetail::optim
