// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "format_rules.hpp"

#include <algorithm>

namespace test {
namespace {
template <class Case>
format_outcome run(int steps) {
  format_outcome o;
  o.weight = values(1);
  o.half = as_halves<bf16>(o.weight);
  o.half16 = as_halves<fp16>(o.weight);
  std::vector<float> gradient(total());
  std::vector<bf16> small(total());
  std::vector<fp16> small16(total());
  halves const h(o.half.data(), o.half16.data(), small.data(), small16.data(), 0);
  auto const parameters = Case::elsewhere ? elsewhere_list() : list(o.weight.data(), gradient.data());
  auto const rule = Case::rule(h);
  auto state = rule.init(parameters);
  for (int i = 0; i < steps; ++i) {
    gradient = gradients(i);
    small = as_halves<bf16>(gradient);
    small16 = as_halves<fp16>(gradient);
    halves const now(o.half.data(), o.half16.data(), small.data(), small16.data(), 0);
    auto const p = Case::elsewhere ? elsewhere_list() : list(o.weight.data(), gradient.data());
    with_source<Case::gradients>(now, [&](auto const& source) { o.last = rule.step(p, state, source); });
  }
  o.state = kept_of(state);
  return o;
}
}  // namespace

format_outcome formats_on_host(int number, int steps) {
#define DOVETAIL_RUN(index, name) \
  if (number == index) return run<name>(steps);
  DOVETAIL_TEST_FORMATS(DOVETAIL_RUN)
#undef DOVETAIL_RUN
  throw argument_error("there is no such case");
}

template <class Case>
alone alone_on_host() {
  alone a{std::vector<float>(Case::size, 1.0f), {}};
  std::vector<float> g(Case::size);
  parameter_list p;
  p.add("w", a.weight, g);
  auto const rule = Case::rule();
  auto state = rule.init(p);
  for (int i = 0; i < Case::steps; ++i) {
    auto const now = gradient_alone<Case>(i);
    std::copy(now.begin(), now.end(), g.begin());
    rule.step(p, state);
  }
  a.state = kept_of(state);
  return a;
}
template alone alone_on_host<recovering>();
template alone alone_on_host<long_packed>();
}  // namespace test
