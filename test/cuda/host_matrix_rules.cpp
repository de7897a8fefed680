// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "matrix_rules.hpp"

#include <limits>

namespace test {
namespace {
template <class Rule>
matrix_outcome run(Rule const& rule, int steps, int poisoned) {
  arena a(tensors);
  auto const& list = a.parameters();
  fill(a.weights(), 1);
  auto state = rule.init(list);
  matrix_outcome o;
  for (int t = 0; t < steps; ++t) {
    fill(a.gradients(), static_cast<std::uint64_t>(1000 + t));
    if (t == poisoned) a.gradients()[7] = std::numeric_limits<float>::quiet_NaN();
    if constexpr (optim::optimizer_traits<Rule>::needs.layers)
      for (std::size_t i = 0; i < list.size(); ++i)
        if (layer::of(list[i])) rule.observe(list, state, layer(list[i], list.offset(i), t).factors);
    o.last = rule.step(list, state);
  }
  o.weight.assign(a.weights().begin(), a.weights().end());
  o.state = std::move(state);
  return o;
}
}  // namespace

matrix_outcome on_host(int rule, int steps, int poisoned) {
#define DOVETAIL_RUN(number, name) \
  if (rule == number) return run(name(), steps, poisoned);
  DOVETAIL_TEST_MATRIX_RULES(DOVETAIL_RUN)
#undef DOVETAIL_RUN
  throw argument_error("there is no such rule");
}
}  // namespace test
