// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>
#include <numbers>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>

// Learning rates as functions of the step. A schedule is called with the number of steps already applied: the first
// step of a training uses schedule(0). A skipped step does not count.

namespace dovetail::optim {

/// A learning rate: a number, or any function of the step. A value; constant expressions can hold a number.
/// Trivially copyable functions of up to 48 bytes lie inside, others in one shared constant object.
class schedule {
 public:
  constexpr schedule() = default;
  template <class Number>
  requires std::is_arithmetic_v<Number>
  constexpr schedule(Number value) : value_(static_cast<float>(value)) {}

  template <class F>
  requires(!std::is_arithmetic_v<F> && !std::is_same_v<F, schedule> &&
           requires(F const& f, std::int64_t step) { static_cast<float>(f(step)); }) schedule(F f) {
    if constexpr (std::is_trivially_copyable_v<F> && sizeof(F) <= sizeof(inside_) && alignof(F) <= 8) {
      ::new (static_cast<void*>(inside_)) F(f);
      call_ = [](schedule const& self, std::int64_t step) {
        return static_cast<float>((*std::launder(reinterpret_cast<F const*>(self.inside_)))(step));
      };
    } else {
      shared_ = new holder<F>(std::move(f));
      call_ = [](schedule const& self, std::int64_t step) {
        return static_cast<float>(static_cast<holder<F> const*>(self.shared_)->f(step));
      };
    }
  }

  constexpr schedule(schedule const& other) { copy(other); }
  constexpr schedule& operator=(schedule const& other) {
    if (this != &other) {
      release();
      copy(other);
    }
    return *this;
  }
  constexpr ~schedule() { release(); }

  /// The rate of the step that comes after `step` steps.
  constexpr float operator()(std::int64_t step) const { return call_ ? call_(*this, step) : value_; }
  /// False for a number: every step has the same rate.
  constexpr bool varies() const { return call_ != nullptr; }

 private:
  struct holder_base {
    std::atomic<long> owners{1};
    virtual ~holder_base() = default;
  };
  template <class F>
  struct holder final : holder_base {
    explicit holder(F g) : f(std::move(g)) {}
    F f;
  };

  constexpr void copy(schedule const& other) {
    value_ = other.value_;
    call_ = other.call_;
    shared_ = other.shared_;
    for (std::size_t i = 0; i < sizeof(inside_); ++i) inside_[i] = other.inside_[i];
    if (shared_) shared_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  constexpr void release() {
    if (shared_ && shared_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete shared_;
    shared_ = nullptr;
  }

  float value_ = 0;
  float (*call_)(schedule const&, std::int64_t) = nullptr;
  holder_base* shared_ = nullptr;
  alignas(8) unsigned char inside_[48]{};
};

/// Always the same rate.
struct constant {
  float value = 1e-3f;  ///< the rate
  constexpr float operator()(std::int64_t) const { return value; }
};

/// initial × factor^floor(step / every).
struct step_decay {
  float initial = 0.1f;    ///< rate of the first step
  float factor = 0.1f;     ///< of each drop
  std::int64_t every = 1;  ///< steps from one drop to the next
  float operator()(std::int64_t step) const {
    return static_cast<float>(static_cast<double>(initial) *
                              std::pow(static_cast<double>(factor), static_cast<double>(step / every)));
  }
};

/// From `from` at step 0 in a straight line to `to` at step `steps`, and `to` from then on.
struct linear {
  float from = 1e-3f, to = 0;  ///< rates at both ends
  std::int64_t steps = 1;      ///< from one end to the other
  constexpr float operator()(std::int64_t step) const {
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
  float operator()(std::int64_t step) const {
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
  float operator()(std::int64_t step) const {
    double const x = static_cast<double>(step) / static_cast<double>(every);
    return static_cast<float>(static_cast<double>(initial) * std::pow(static_cast<double>(factor), x));
  }
};

/// From `from` at step 0 to `to` at step `steps` as the power `power` of what is left, and `to` from then on.
struct polynomial {
  float from = 1e-3f, to = 0;  ///< rates at both ends
  std::int64_t steps = 1;      ///< from one end to the other
  float power = 1;             ///< 1: a straight line; more: lands more softly
  float operator()(std::int64_t step) const {
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
  float operator()(std::int64_t step) const {
    double const base = 1 + static_cast<double>(decay) * static_cast<double>(step);
    return static_cast<float>(static_cast<double>(initial) * std::pow(base, -static_cast<double>(power)));
  }
};

/// peak × sqrt(steps / max(step, steps)), flat over the first `steps` steps. Times min(1, (step + 1) / steps) it is the
/// schedule of the Transformer (Vaswani et al., NeurIPS 2017, section 5.3); behind warm_up it would count from 0 again
/// and stay flat for as long.
struct inverse_sqrt {
  float peak = 1e-3f;      ///< rate of the first step
  std::int64_t steps = 1;  ///< before it falls
  float operator()(std::int64_t step) const {
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
  float operator()(std::int64_t step) const {
    std::int64_t length = steps;
    if (growth <= 1)
      step %= length;
    else
      for (; step >= length; length *= growth) step -= length;
    double const x = static_cast<double>(step) / static_cast<double>(length);
    return static_cast<float>(static_cast<double>(final) + (static_cast<double>(initial) - static_cast<double>(final)) *
                                                               0.5 * (1 + std::cos(std::numbers::pi * x)));
  }
};

/// Between `low` and `high` in straight lines, `up` steps each way; each peak is `shrink` times as high above `low` as
/// the one before (Smith, Cyclical Learning Rates, WACV 2017: triangular with shrink 1, triangular2 with 1/2).
struct cyclical {
  float low = 1e-4f, high = 1e-2f;  ///< the lowest rate, and the first peak
  std::int64_t up = 2000;           ///< steps from low to high, half a cycle
  float shrink = 1;                 ///< factor of the height of each peak
  float operator()(std::int64_t step) const {
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
  float operator()(std::int64_t step) const {
    double const top = static_cast<double>(rise) * static_cast<double>(steps) - 1,
                 last = static_cast<double>(steps - 1);
    double const start = static_cast<double>(peak) / static_cast<double>(start_divisor), at = static_cast<double>(step);
    if (at >= last) return static_cast<float>(start / static_cast<double>(final_divisor));
    auto const wave = [](double from, double to, double x) {
      return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * x));
    };
    return static_cast<float>(at <= top ? wave(start, static_cast<double>(peak), at / top)
                                        : wave(static_cast<double>(peak), start / static_cast<double>(final_divisor),
                                               (at - top) / (last - top)));
  }
};

/// Linear warm-up, then another schedule, which starts to count behind it: during the first `steps` steps the rate
/// rises in equal parts from `from` (before the first step) to then(0) (in the last of them) (Goyal et al., 2017,
/// section 2.2).
template <class Then = constant>
struct warm_up {
  std::int64_t steps = 0;  ///< of the warm-up
  Then then{};             ///< the schedule behind it
  float from = 0;          ///< the rate that it rises from
  float operator()(std::int64_t step) const {
    if (step >= steps) return static_cast<float>(then(step - steps));
    double const x = static_cast<double>(step + 1) / static_cast<double>(steps);
    auto const low = static_cast<double>(from);
    return static_cast<float>(low + (static_cast<double>(then(0)) - low) * x);
  }
};
template <class Then>
warm_up(std::int64_t, Then) -> warm_up<Then>;
template <class Then>
warm_up(std::int64_t, Then, float) -> warm_up<Then>;

/// A low rate for `steps` steps, then another schedule, which starts to count behind it (He et al., CVPR 2016, section
/// 4.2: "warm up"; Goyal et al., 2017, section 2.2, constant warm-up).
template <class Then = constant>
struct constant_warm_up {
  std::int64_t steps = 0;  ///< with the low rate
  Then then{};             ///< the schedule behind them
  float rate = 1e-2f;      ///< of those steps
  float operator()(std::int64_t step) const { return step < steps ? rate : static_cast<float>(then(step - steps)); }
};
template <class Then>
constant_warm_up(std::int64_t, Then, float) -> constant_warm_up<Then>;

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
