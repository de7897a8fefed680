// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include <dovetail/core/ranges.hpp>

// What rules and stages hold as their rate. The functions of the step that it may be are in
// optim/schedules/schedules.hpp.

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
    check_policy(f);
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
    long owners = 1;  // changed by the compilers' atomic functions: <atomic> would cost every program its compile time
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
    if (shared_) __atomic_fetch_add(&shared_->owners, 1, __ATOMIC_RELAXED);
  }
  constexpr void release() {
    if (shared_ && __atomic_fetch_sub(&shared_->owners, 1, __ATOMIC_ACQ_REL) == 1) delete shared_;
    shared_ = nullptr;
  }

  float value_ = 0;
  float (*call_)(schedule const&, std::int64_t) = nullptr;
  holder_base* shared_ = nullptr;
  alignas(8) unsigned char inside_[48]{};
};

namespace detail {
/// What a rate may be: it goes into every weight.
inline constexpr bounds rate_range = ranges::not_negative;

/// check_policy, and the rate of a rule or a stage where that is a number. One that varies is checked in every step.
template <class P>
constexpr void check_hyperparameters(P const& p) {
  check_policy(p);
  if constexpr (dovetail::detail::described<P> && requires { p.lr.varies(); })
    if (!p.lr.varies() && !rate_range.holds(static_cast<double>(p.lr(0))))
      dovetail::detail::refuse(dovetail::detail::policy_of<P>.name, "lr", static_cast<double>(p.lr(0)), rate_range);
}
/// The same of a rule and of the stages that it stands for.
template <class Rule>
constexpr void check_rule(Rule const& r) {
  check_hyperparameters(r);
  if constexpr (requires { r.stages().check(); }) r.stages().check();
}
}  // namespace detail

}  // namespace dovetail::optim
