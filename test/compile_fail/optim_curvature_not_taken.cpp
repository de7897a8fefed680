// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An optimizer that needs curvature takes it.
// first error gcc: needs curvature, and has not bool observe.*rule>
// first error clang: rule.*needs curvature, and has not bool observe
#include <dovetail/optim/optimizer_traits.hpp>

using namespace dovetail;
struct rule {
  struct state_type {};
  state_type init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state_type&, optim::step_context const& = {}) const { return {}; }
  static constexpr optim::rule_needs needs{.curvature = true};
#ifdef FAIL
  bool observe(parameter_list const&, state_type&, optim::hessian_diagonal const&) { return true; }
#else
  bool observe(parameter_list const&, state_type&, optim::hessian_diagonal const&) const { return true; }
#endif
};
optim::step_result go(parameter_list const& p, rule::state_type& s) { return optim::step_optimizer(rule{}, p, s, {}); }
