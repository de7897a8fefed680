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
  switch (rule) {
    case 0:
      return run(sgd(), steps, poisoned);
    case 1:
      return run(momentum(), steps, poisoned);
    case 2:
      return run(nesterov(), steps, poisoned);
    case 3:
      return run(adam(), steps, poisoned);
    case 4:
      return run(adamw(), steps, poisoned);
    case 5:
      return run(lars(), steps, poisoned);
    case 6:
      return run(lamb(), steps, poisoned);
    default:
      return run(clipped(), steps, poisoned);
  }
}
}  // namespace test
