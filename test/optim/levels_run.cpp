// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "levels.hpp"

#include <cstdint>

#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>

#ifndef LEVEL_STEPS
#define LEVEL_STEPS 10
#endif

namespace levels {
namespace {
using namespace dovetail;

void fill(std::span<float> x, std::uint32_t stream) {
  random_stream const r{11, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * r.uniform(i) - 1;
}
template <class Rule>
void go(ways& all, char const* name, Rule rule) {
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  arena a({{"a", {1}}, {"b", {37, 9}}, {"c", {5001}}});
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (std::uint32_t t = 1; t <= LEVEL_STEPS; ++t) {
    fill(a.gradients(), 100 + t);
    rule.step(a.parameters(), state, {.loss = 1 + random_stream{11, 99}.uniform(t)});
  }
  all.emplace_back(name, std::vector<float>(a.weights().begin(), a.weights().end()));
}
}  // namespace

__attribute__((visibility("default"))) ways LEVEL() {
  ways all;
#define RULE(rule) go(all, #rule, optim::rule{});
  RULE(sgd)
  RULE(momentum)
  RULE(nesterov)
  RULE(adam)
  RULE(adamw)
  RULE(lars)
  RULE(lamb)
  RULE(sign_sgd)
  RULE(signum)
  RULE(lion)
  RULE(qhm)
  RULE(adagrad)
  RULE(adadelta)
  RULE(rmsprop)
  RULE(rmsprop_momentum)
  RULE(rmsprop_centered)
  RULE(rprop)
  RULE(adamax)
  RULE(nadam)
  RULE(amsgrad)
  RULE(radam)
  RULE(adabound)
  RULE(adabelief)
  RULE(yogi)
  RULE(qhadam)
  RULE(ademamix)
  RULE(adopt)
  RULE(adan)
  RULE(schedule_free_sgd)
  RULE(schedule_free_adamw)
  RULE(novograd)
  RULE(larc)
  RULE(lans)
  RULE(prodigy)
  RULE(adafactor)
  RULE(sm3)
  RULE(row_wise_adagrad)
  RULE(padam)
  RULE(amsbound)
  RULE(nadamax)
  RULE(simplified_ademamix)
  RULE(acprop)
  RULE(optimistic_adam)
  RULE(ftml)
  RULE(swats)
  RULE(optimistic_sgd)
  RULE(demon)
  RULE(entropy_sgd)
  RULE(ftrl)
  RULE(wngrad)
  RULE(adagrad_norm)
  RULE(dog)
  RULE(dowg)
  RULE(dadapt_adamw)
  RULE(cocob)
  RULE(smorms3)
  RULE(fromage)
  RULE(percent_delta)
  RULE(polyak_sgd)
  RULE(momo)
  RULE(momo_adam)
  RULE(eve)
#undef RULE
  return all;
}
}  // namespace levels
