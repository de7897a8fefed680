// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All rules, each compiled once for all tests (part.cpp), behind one type. A test goes through all() and learns what a
// rule is when it runs; what it knows of a rule beyond that is a table by name, with a default for rules that it does
// not list.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/settings.hpp>

namespace known {

using namespace dovetail;

/// Hyperparameters: `given` by name, as optim::make takes them; `unchecked` by type, also those that the rule refuses.
struct recipe {
  optim::settings given{};
  optim::settings unchecked{};
};

/// "lr=0.1 beta1=0.8": values as optim::make takes them, and schedules: 0.1*0.99^t, cosine(0.1,30), relative_step(0.3).
optim::settings settings_of(std::string_view text);

/// What a test does with an optimizer that is no any_optimizer: in groups, behind a guard, with packed slots.
template <class State, class T = float>
class optimizer {
  using list = basic_parameter_list<T>;
  using layer = basic_kfac_statistics<T>;
  using diagonal = optim::basic_hessian_diagonal<T>;

 public:
  /// What it may need; chosen_needs() says what it does.
  static constexpr optim::rule_needs needs{.layers = true, .loss = true, .curvature = true, .whole_tensors = true};

  template <class O>
  requires(!std::is_same_v<O, optimizer>) explicit optimizer(O o)
      : needs_(optim::needs_of<T>(o)), held_(std::make_shared<holder<O>>(std::move(o))) {}

  optim::rule_needs chosen_needs() const { return needs_; }

  State init(list const& p) const { return held_->init(p); }
  optim::step_result step(list const& p, State& s, optim::step_context const& context = {}) const {
    return held_->step(p, s, context);
  }
  /// Of a rule that does not learn from layers, nothing.
  void observe(list const& p, State& s, layer const& f) const { held_->observe(p, s, f); }
  bool observe(list const& p, State& s, diagonal const& d) const { return held_->observe(p, s, d); }
  std::vector<std::span<T>> unreduced_statistics(list const& p, State& s) const {
    return held_->unreduced_statistics(p, s);
  }

 private:
  struct base {
    base() = default;
    base(base const&) = delete;
    virtual ~base() = default;
    virtual State init(list const&) const = 0;
    virtual optim::step_result step(list const&, State&, optim::step_context const&) const = 0;
    virtual void observe(list const&, State&, layer const&) const = 0;
    virtual bool observe(list const&, State&, diagonal const&) const = 0;
    virtual std::vector<std::span<T>> unreduced_statistics(list const&, State&) const = 0;
  };
  template <class O>
  struct holder final : base {
    explicit holder(O o) : of(std::move(o)) {}
    State init(list const& p) const override { return of.init(p); }
    optim::step_result step(list const& p, State& s, optim::step_context const& x) const override {
      return of.step(p, s, x);
    }
    void observe(list const& p, State& s, layer const& f) const override {
      if constexpr (optim::optimizer_traits<O, T>::needs.layers) of.observe(p, s, f);
    }
    bool observe([[maybe_unused]] list const& p, [[maybe_unused]] State& s,
                 [[maybe_unused]] diagonal const& d) const override {
      if constexpr (optim::optimizer_traits<O, T>::needs.curvature) return of.observe(p, s, d);
      throw argument_error("known::optimizer: this rule takes no curvature");
    }
    std::vector<std::span<T>> unreduced_statistics(list const& p, State& s) const override {
      if constexpr (optim::optimizer_traits<O, T>::needs.layers) return of.unreduced_statistics(p, s);
      return {};
    }
    O of;
  };
  optim::rule_needs needs_;
  std::shared_ptr<base const> held_;
};
using plain = optimizer<optim::state>;
using doubles = optimizer<optim::basic_state<double>, double>;
using packed_state = optim::stored_state<optim::blockwise_8bit>;

/// A hyperparameter: what the rule declares of it, and its default (of a schedule, that of the first step).
struct named_field {
  dovetail::detail::field_base says;
  double value;
  bool is_rate;  ///< a schedule

  /// A number in the field's range that is not its default.
  double another() const {
    if (says.whole()) return value + 1;
    for (double const x : {value * 0.5, value * 0.5 + 0.01, value + 0.25})
      if (says.range().holds(x) && static_cast<double>(static_cast<float>(x)) != value) return x;
    return value;
  }
};

/// A rule. What it gives is of the rule's own type behind the interface, without the registry.
class rule {
 public:
  std::string family, name;
  optim::plan plan;
  optim::rule_needs needs;
  std::vector<named_field> fields;
  bool averages = false;  ///< averaged_weights has something to give
  bool packs = false;     ///< its slots may be stored in 8 bits

  rule() = default;
  rule(rule const&) = delete;
  virtual ~rule() = default;

  named_field const* field(std::string_view wanted) const {
    for (auto const& f : fields)
      if (f.says.name() == wanted) return &f;
    return nullptr;
  }
  /// Its learning rate can be a schedule.
  bool has_schedule() const { return field("lr") && field("lr")->is_rate; }

  /// Into `out`, which is one of the rule's type.
  virtual void write(recipe const&, void* out) const = 0;
  virtual optim::any_optimizer any(recipe const& = {}) const = 0;
  virtual plain typed(recipe const& = {}) const = 0;
  /// On parameters of doubles.
  virtual known::doubles doubles(recipe const& = {}) const = 0;
  virtual optim::step_result step_scaled(recipe const&, parameter_list const&, optim::state&, optim::gradient::scaled,
                                         optim::step_context const&) const = 0;
  /// Behind skip_non_finite.
  virtual plain guarded(recipe const& = {}) const = 0;
  /// With other hyperparameters for the parameters whose names match `pattern`.
  virtual plain groups(recipe const& rest, std::string const& pattern, recipe const& matching) const = 0;
  /// Only of a rule that `packs`.
  virtual optimizer<packed_state> packed(recipe const&, std::uint64_t seed) const = 0;
  virtual void averaged_weights(recipe const&, parameter_list const&, optim::state const&,
                                std::span<float> out) const = 0;
  virtual std::vector<hyperparameter> hyperparameters(recipe const& = {}) const = 0;
  virtual float learning_rate(recipe const&, std::int64_t step) const = 0;
};

/// In the order of their lists: those of optim/rules.hpp; those of optim/matrix.hpp (CMake's
/// dovetail_test_matrix_rules).
std::vector<std::unique_ptr<rule const>> const& all();
std::vector<std::unique_ptr<rule const>> const& matrix();
/// One of all(). Throws argument_error for another name.
rule const& find(std::string_view name);

}  // namespace known
