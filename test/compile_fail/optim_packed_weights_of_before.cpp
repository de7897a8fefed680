// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// first error: keeps weights of before in its slots
#include <dovetail/optim.hpp>
#include <dovetail/optim/stored.hpp>

using namespace dovetail;

void pack(parameter_list const& parameters) {
  optim::chain const averaged{optim::adamw{}, optim::average_weights{}};
#ifdef FAIL
  optim::stored const opt{averaged, optim::blockwise_8bit{}};
#else
  optim::stored const opt{optim::adamw{}, optim::blockwise_8bit{}};
#endif
  auto state = opt.init(parameters);
  opt.step(parameters, state);
  (void)averaged;
}
