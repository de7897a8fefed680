// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// first error: keeps weights of before in its slots
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>

using namespace dovetail;

void pack(parameter_list const& parameters) {
  optim::chain const averaged{optim::adamw{}, optim::ema_weights{}};
#ifdef FAIL
  optim::low_precision_state const opt{averaged, optim::blockwise_8bit{}};
#else
  optim::low_precision_state const opt{optim::adamw{}, optim::blockwise_8bit{}};
#endif
  auto state = opt.init(parameters);
  opt.step(parameters, state);
  (void)averaged;
}
