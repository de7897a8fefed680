// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an optimizer needs is a constant of optim::rule_needs.
// first error gcc: its `needs` is not.*rule>
// first error clang: rule.*its `needs` is not
#include <dovetail/optim/optimizer_traits.hpp>

using namespace dovetail;
struct rule {
  struct state_type {};
  state_type init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state_type&, optim::step_context const& = {}) const { return {}; }
#ifdef FAIL
  bool needs = true;
#else
  static constexpr optim::rule_needs needs{.loss = true};
#endif
};
optim::step_result go(parameter_list const& p, rule::state_type& s) { return optim::step_optimizer(rule{}, p, s, {}); }
