// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>

// An optimizer that a program chooses when it runs. By name: optim/rules/registry.hpp.

namespace dovetail::optim {

/// An optimizer whose rule is chosen when the program runs: it holds a copy of any chain, or rule that stands for one,
/// and does exactly what that does, with the same state. A step costs one indirect call more.
///
///     optim::any_optimizer opt = optim::adamw{.lr = 1e-3f};
///     if (clipped) opt = optim::chain{optim::clip_by_global_norm{1.f}, optim::adamw{.lr = 1e-3f}};
///
/// A value: copies share what is never changed. Gradients are dense or gradient::scaled; for others, and for
/// low_precision_state, param_groups and cuda::optimizer, the rule must be known when the program is compiled.
class any_optimizer {
 public:
  using state_type = state;
  /// What it may need, so what a synchronizer compiles; `chosen_needs()` says what the rule at hand does need.
  static constexpr rule_needs needs{.layers = true, .loss = true, .curvature = true, .whole_tensors = true};

  template <class Rule>
  requires(!std::derived_from<Rule, any_optimizer> &&
           requires(Rule const r, parameter_list& p) {
             { r.init(p) } -> std::same_as<state>;
           }) any_optimizer(Rule rule)
      : rule_(std::make_shared<holder<Rule>>(std::move(rule))) {
    static_assert(detail::must_take_gradients<Rule>::holds);
  }
  // No moves: one that was moved from would have no rule.
  any_optimizer(any_optimizer const&) = default;
  any_optimizer& operator=(any_optimizer const&) = default;

  state init(parameter_list const& parameters) const { return rule_->init(parameters); }
  template <class T, class Space>
  requires(!std::is_same_v<basic_parameter_list<T, Space>, parameter_list>)  //
      auto init(basic_parameter_list<T, Space> const&) const {
    DOVETAIL_REQUIRE((std::is_same_v<basic_parameter_list<T, Space>, parameter_list>),
                     "any_optimizer steps floats in the host's memory (dovetail::parameter_list): for other lists name "
                     "the rule's type",
                     basic_parameter_list<T, Space>);
  }
  /// Throws argument_error unless the state fits the rule, its hyperparameters and these parameters.
  void check_state(parameter_list const& parameters, state const& s) const { rule_->check_state(parameters, s); }
  step_result step(parameter_list const& parameters, state& s, step_context const& context = {}) const {
    return rule_->step(parameters, s, context);
  }
  template <detail::source_argument Source>
  step_result step(parameter_list const& parameters, state& s, Source const& source,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    constexpr bool dense = std::is_same_v<Source, gradient::dense>, scaled = std::is_same_v<Source, gradient::scaled>;
    DOVETAIL_REQUIRE(dense || scaled,
                     "any_optimizer reads gradients that are dense or gradient::scaled: for this source step the rule "
                     "itself",
                     Source);
    source.check(parameters);
    if constexpr (scaled) {
      step_context with_factor = context;
      with_factor.gradient_factor *= source.factor;
      return rule_->step(parameters, s, with_factor);
    } else {
      return rule_->step(parameters, s, context);
    }
  }

  /// As chain's. For a rule that does not learn from layers, nothing.
  void observe(parameter_list const& parameters, state& s, kfac_statistics const& f) const {
    rule_->observe(parameters, s, f);
  }
  /// Throws argument_error if the rule does not divide by the Hessian's diagonal.
  bool observe(parameter_list const& parameters, state& s, hessian_diagonal const& d) const {
    return rule_->observe(parameters, s, d);
  }
  std::vector<std::span<float>> unreduced_statistics(parameter_list const& parameters, state& s) const {
    return rule_->unreduced_statistics(parameters, s);
  }

  /// What the rule is called: "adamw".
  std::string const& name() const { return rule_->name; }
  /// Its hyperparameters by name, as dovetail::hyperparameters_of gives them for the rule itself.
  std::vector<hyperparameter> hyperparameters() const { return rule_->hyperparameters(); }
  /// What the rule's steps need besides gradients.
  rule_needs chosen_needs() const { return rule_->needs; }
  /// Throws argument_error if the rule would refuse its next step.
  void check_next_step(parameter_list const& parameters, state const& s, step_context const& context) const {
    rule_->check_next_step(parameters, s, context);
  }
  /// The learning rate of step t (from 1); of groups, that of the rest.
  float learning_rate(std::int64_t t) const { return rule_->learning_rate(t); }

 private:
  struct holder_base {
    std::string name;
    rule_needs needs;

    holder_base(std::string n, rule_needs const& r) : name(std::move(n)), needs(r) {}
    holder_base(holder_base const&) = delete;
    holder_base& operator=(holder_base const&) = delete;
    virtual ~holder_base() = default;
    virtual state init(parameter_list const&) const = 0;
    virtual void check_state(parameter_list const&, state const&) const = 0;
    virtual step_result step(parameter_list const&, state&, step_context const&) const = 0;
    virtual void observe(parameter_list const&, state&, kfac_statistics const&) const = 0;
    virtual std::vector<std::span<float>> unreduced_statistics(parameter_list const&, state&) const = 0;
    virtual bool observe(parameter_list const&, state&, hessian_diagonal const&) const = 0;
    virtual std::vector<hyperparameter> hyperparameters() const = 0;
    virtual float learning_rate(std::int64_t) const = 0;
    virtual void check_next_step(parameter_list const&, state const&, step_context const&) const = 0;
  };
  template <class Rule>
  struct holder final : holder_base {
    explicit holder(Rule r) : holder_base(policy_name(r), needs_of(r)), rule(std::move(r)) {}

    state init(parameter_list const& p) const override { return rule.init(p); }
    void check_state(parameter_list const& p, state const& s) const override {
      if constexpr (requires { rule.check_state(p, s); }) rule.check_state(p, s);
    }
    step_result step(parameter_list const& p, state& s, step_context const& o) const override {
      return rule.step(p, s, o);
    }
    void observe(parameter_list const& p, state& s, kfac_statistics const& f) const override {
      if constexpr (optimizer_traits<Rule>::needs.layers) rule.observe(p, s, f);
    }
    std::vector<std::span<float>> unreduced_statistics(parameter_list const& p, state& s) const override {
      if constexpr (optimizer_traits<Rule>::needs.layers) return rule.unreduced_statistics(p, s);
      return {};
    }
    bool observe(parameter_list const& p, state& s, hessian_diagonal const& d) const override {
      if constexpr (optimizer_traits<Rule>::needs.curvature)
        return rule.observe(p, s, d);
      else
        throw argument_error(message("any_optimizer: ", this->name, " does not divide by the Hessian's diagonal: only ",
                                     "a rule that needs curvature can be given one"));
    }
    std::vector<hyperparameter> hyperparameters() const override { return hyperparameters_of(rule); }
    float learning_rate(std::int64_t t) const override {
      if constexpr (requires { rule.learning_rate(t); })
        return rule.learning_rate(t);
      else if constexpr (requires { rule.stages(); })
        return rule.stages().learning_rate(t);
      else if constexpr (requires { rule.chains(); })
        return rule.chains()[0].learning_rate(t);
      else
        return 1;
    }
    void check_next_step(parameter_list const& p, state const& s, step_context const& o) const override {
      detail::check_next_step(rule, p, s, o);
    }

    Rule rule;
  };
  std::shared_ptr<holder_base const> rule_;
};

}  // namespace dovetail::optim
