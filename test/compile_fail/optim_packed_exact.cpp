// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// first error: magnifies what rounding does to its slots
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>

using namespace dovetail;

void pack(parameter_list const& parameters) {
#ifdef FAIL
  optim::low_precision_state const opt{optim::rmsprop_centered{}, optim::bf16_slots{}};
#else
  optim::low_precision_state const opt{optim::rmsprop{}, optim::bf16_slots{}};
#endif
  auto state = opt.init(parameters);
  opt.step(parameters, state);
}
