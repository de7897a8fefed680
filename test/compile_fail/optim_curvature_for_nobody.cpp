// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Only a rule that divides by the Hessian's diagonal can be given one.
// first error gcc: must have exactly one stage that wants the Hessian.*optim::adamw
// first error clang: optim::adamw.*must have exactly one stage that wants the Hessian
#include <dovetail/optim/rules.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::adamw;
#else
using rule = optim::sophia;
#endif
bool give(parameter_list const& p, optim::state& s, std::span<float> estimate) {
  return optim::observe_curvature(rule{}, p, s, estimate);
}
