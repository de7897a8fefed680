// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "rules.hpp"

#include <limits>

namespace test {
namespace {
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

outcome on_host(int rule, int steps, int poisoned) {
#define DOVETAIL_RUN(number, name) \
  if (rule == number) return run(name(), steps, poisoned);
  DOVETAIL_TEST_RULES(DOVETAIL_RUN)
#undef DOVETAIL_RUN
  throw argument_error("there is no such rule");
}
}  // namespace test
