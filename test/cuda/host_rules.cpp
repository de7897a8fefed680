// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "rules.hpp"

#include <algorithm>
#include <limits>
#include <map>

#include "rules/known.hpp"

namespace test {
namespace {
/// Hyperparameters away from their defaults. Of a rule that is not listed, whatever is near the default and in range.
std::map<std::string, char const*> const settings{
    {"sgd", "lr=0.05 weight_decay=0.02"},
    {"momentum", "lr=0.02 momentum=0.8 dampening=0.1 weight_decay=0.02"},
    {"nesterov", "lr=0.02 momentum=0.8 weight_decay=0.02"},
    {"adam", "lr=0.01 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"adamw", "lr=cosine(0.01,30) beta1=0.8 beta2=0.95 epsilon=1e-3"},
    {"lars", "lr=0.5 weight_decay=0.02 trust_coefficient=0.02"},
    {"lamb", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"lion", "lr=0.01 beta1=0.8 beta2=0.95 weight_decay=0.02"},
    {"adadelta", "lr=0.5 rho=0.8 epsilon=1e-3 weight_decay=0.02"},
    {"rprop", "initial_step=0.01 shrink=0.4 grow=1.3"},
    {"rmsprop_centered", "lr=0.01 alpha=0.9 momentum=0.5 epsilon=1e-2 weight_decay=0.02"},
    {"nadam", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"radam", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"ademamix", "lr=0.01 beta2=0.95 beta3=0.99 warmup=10 epsilon=1e-3"},
    {"adopt", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"adan", "lr=0.01 epsilon=1e-3 weight_decay=0.02"},
    {"schedule_free_adamw", "lr=0.01 beta2=0.95 epsilon=1e-3 warmup=5 weight_decay=0.02"},
    {"sign_sgd", "lr=0.01 weight_decay=0.02"},
    {"signum", "lr=0.01 momentum=0.8 weight_decay=0.02"},
    {"qhm", "lr=0.01 nu=0.6 beta=0.9 weight_decay=0.02"},
    {"adagrad", "lr=0.02 initial_accumulator=0.1 epsilon=1e-3 weight_decay=0.02"},
    {"rmsprop", "lr=0.01 alpha=0.9 epsilon=1e-2 weight_decay=0.02"},
    {"adamax", "lr=0.01 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"amsgrad", "lr=0.01 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"adabound", "lr=0.01 final_ratio=2 gamma=0.1 beta2=0.95 epsilon=1e-3"},
    {"adabelief", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"yogi", "lr=0.01 beta2=0.95 weight_decay=0.02"},
    {"qhadam", "lr=0.01 nu2=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"schedule_free_sgd", "lr=0.05 beta=0.8 warmup=5 weight_decay=0.02"},
    {"rmsprop_momentum", "lr=0.01 alpha=0.9 momentum=0.5 epsilon=1e-2 weight_decay=0.02"},
    {"novograd", "lr=0.01 beta1=0.8 beta2=0.9 epsilon=1e-3 weight_decay=0.02"},
    {"larc", "lr=0.05 momentum=0.8 weight_decay=0.02 trust_coefficient=0.05"},
    {"lans", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"prodigy", "beta2=0.95 epsilon=1e-3 weight_decay=0.02 initial_d=0.01"},
    {"padam", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"amsbound", "lr=0.01 final_ratio=2 gamma=0.1 beta2=0.95 epsilon=1e-3"},
    {"nadamax", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"simplified_ademamix", "lr=1e-3 alpha=2 epsilon=1e-3 weight_decay=0.02"},
    {"acprop", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"optimistic_adam", "lr=0.01 beta2=0.95 epsilon=1e-3 optimism=0.5 weight_decay=0.02"},
    {"ftml", "lr=0.01 beta2=0.95 epsilon=1e-3 weight_decay=0.02"},
    {"swats", "lr=0.01 beta2=0.9 epsilon=1e-3 tolerance=1 weight_decay=0.02"},
    {"optimistic_sgd", "lr=0.02 beta=0.5 weight_decay=0.02"},
    {"demon", "lr=0.02 momentum=0.8 steps=12 weight_decay=0.02"},
    {"entropy_sgd", "lr=0.05 outer_lr=0.8 steps=4 scope=0.1 scope_growth=0.1"},
    {"ftrl", "lr=0.3 beta=1 l1=2 l2=0.2"},  // beta + lr l2 shows fusing
    {"wngrad", "initial=100 weight_decay=0.02"},
    {"adagrad_norm", "initial=0.5 weight_decay=0.02"},
    {"dog", "reach=1e-3 weight_decay=0.02"},
    {"dowg", "initial_square=1e-2 weight_decay=0.02"},
    {"dadapt_adamw", "beta2=0.95 epsilon=1e-3 weight_decay=0.02 initial_d=0.01"},
    {"cocob", "alpha=20 weight_decay=0.02"},
    {"smorms3", "lr=0.01 epsilon=1e-3 weight_decay=0.02"},
    {"fromage", "lr=0.02"},
    {"percent_delta", "lr=0.01 momentum=0.8 weight_decay=0.02"},
};
known::recipe recipe_of(known::rule const& r) {
  known::recipe recipe;
  if (auto const found = settings.find(r.name); found != settings.end())
    recipe.given = known::settings_of(found->second);
  else
    for (auto const& f : r.fields)
      if (f.is_rate || (f.says.has_range() && !f.says.whole()))
        recipe.unchecked.push_back({f.says.name(), f.another()});
  return recipe;
}

template <class Rule>
outcome run(Rule const& rule, int steps, int poisoned) {
  auto weight = values(1);
  std::vector<float> gradient(total());
  auto const parameters = list(weight.data(), gradient.data());
  auto state = rule.init(parameters);
  outcome o;
  for (int i = 0; i < steps; ++i) {
    auto const g = gradients(i);
    std::copy(g.begin(), g.end(), gradient.begin());
    if (i == poisoned) gradient[total() / 2] = std::numeric_limits<float>::quiet_NaN();
    o.last = rule.step(parameters, state);
  }
  o.weight = weight;
  for (std::size_t s = 0; s < state.slots(); ++s) o.slot.emplace_back(state.slot(s).begin(), state.slot(s).end());
  return o;
}
}  // namespace

void configure(char const* rule, void* out) {
  auto const& r = known::find(rule);
  r.write(recipe_of(r), out);
}

outcome on_host(std::string const& name, int steps, int poisoned) {
#define DOVETAIL_RUN(chain) \
  if (name == #chain) return run(chain(), steps, poisoned);
  DOVETAIL_TEST_CHAINS(DOVETAIL_RUN)
#undef DOVETAIL_RUN
  auto const& r = known::find(name);
  return run(r.any(recipe_of(r)), steps, poisoned);
}
}  // namespace test
