// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Only a rule that divides by the Hessian's diagonal can be given one.
// first error gcc: no stage of this chain wants the Hessian
// first error clang: no stage of this chain wants the Hessian
#include <dovetail/optim/rules.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::adamw;
#else
using rule = optim::sophia;
#endif
bool give(parameter_list const& p, optim::state& s, std::span<float> estimate) {
  return rule{}.observe(p, s, optim::hessian_diagonal{estimate});
}
