// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// How a rule's type becomes a known::rule. Included where rules are compiled, not by tests.
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/param_groups.hpp>
#include <dovetail/optim/stages.hpp>

#include "known.hpp"

namespace known {

/// Without a check: what a test wants to see refused can be made.
template <class T>
void set_unchecked(T& x, optim::settings const& given) {
  for (auto const& [name, value] : given)
    for (auto const& f : T::describe()) {
      if (f.name() != name) continue;
      if (auto* const rate = f.template as<optim::schedule>(x))
        *rate = value.function() ? *value.function() : optim::schedule(static_cast<float>(*value.number()));
      else if (f.choices())
        f.choose(x, static_cast<long>(*value.number()));
      else
        f.set(x, *value.number());
    }
}

template <class Rule>
Rule made(recipe const& r) {
  Rule x{};
  if (!r.given.empty()) optim::detail::apply_settings(x, r.given, "known::rule");
  set_unchecked(x, r.unchecked);
  return x;
}

template <class Stages>
struct abilities;
template <class... Stages>
struct abilities<std::tuple<Stages...>> {
  static constexpr bool averages = (std::size_t{0} + ... + (optim::detail::averages<Stages> ? 1u : 0u)) == 1;
};

/// Everything in it is compiled for each rule: tests keep what is not about the type on their side.
template <class Rule>
class rule_of final : public rule {
  static constexpr optim::plan const& its_plan = Rule::plan;
  using can = abilities<std::remove_cvref_t<decltype(optim::detail::stages_of(std::declval<Rule const&>()))>>;
  static constexpr bool can_pack = !its_plan.slots_hold_weights && !its_plan.exact_slots;

 public:
  explicit rule_of(std::string its_family) {
    family = std::move(its_family);
    name = dovetail::detail::policy_of<Rule>.name;
    plan = its_plan;
    needs = optim::needs_of(Rule{});
    averages = can::averages;
    packs = can_pack;
    Rule usual{};
    for (auto const& f : Rule::describe()) {
      auto* const rate = f.template as<optim::schedule>(usual);
      fields.push_back({f, rate ? static_cast<double>((*rate)(0)) : f.value(usual), rate != nullptr});
    }
  }

  void write(recipe const& r, void* out) const override { *static_cast<Rule*>(out) = made<Rule>(r); }
  optim::any_optimizer any(recipe const& r) const override { return made<Rule>(r); }
  plain typed(recipe const& r) const override { return plain(made<Rule>(r)); }
  known::doubles doubles(recipe const& r) const override { return known::doubles(made<Rule>(r)); }
  optim::step_result step_scaled(recipe const& r, parameter_list const& p, optim::state& s, optim::gradient::scaled g,
                                 optim::step_context const& context) const override {
    return made<Rule>(r).step(p, s, g, context);
  }
  plain guarded(recipe const& r) const override { return plain(optim::chain{optim::skip_non_finite{}, made<Rule>(r)}); }
  plain groups(recipe const& rest, std::string const& pattern, recipe const& matching) const override {
    return plain(
        optim::param_groups{made<Rule>(rest), optim::group{optim::name_matches{pattern}, made<Rule>(matching)}});
  }
  optimizer<packed_state> packed([[maybe_unused]] recipe const& r, [[maybe_unused]] std::uint64_t seed) const override {
    if constexpr (can_pack)
      return optimizer<packed_state>(optim::low_precision_state{made<Rule>(r), optim::blockwise_8bit{seed}});
    else
      throw argument_error(name + " has no slots that may be stored in 8 bits");
  }
  void averaged_weights([[maybe_unused]] recipe const& r, [[maybe_unused]] parameter_list const& p,
                        [[maybe_unused]] optim::state const& s, [[maybe_unused]] std::span<float> out) const override {
    if constexpr (can::averages)
      optim::averaged_weights(made<Rule>(r), p, s, out);
    else
      throw argument_error(name + " averages no weights");
  }
  std::vector<hyperparameter> hyperparameters(recipe const& r) const override {
    return hyperparameters_of(made<Rule>(r));
  }
  float learning_rate(recipe const& r, std::int64_t step) const override {
    return made<Rule>(r).stages().learning_rate(step);
  }
};

}  // namespace known
