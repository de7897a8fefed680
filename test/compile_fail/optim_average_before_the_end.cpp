// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An average of weights needs to know how they will change.
// first error gcc: works on the change of the weights: move it behind.*optim::scale_by_learning_rate
// first error clang: optim::scale_by_learning_rate.*works on the change of the weights: move it behind
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/stages/averaging.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::chain<optim::scale_by_adam, optim::ema_weights, optim::scale_by_learning_rate>;
#else
using rule = optim::chain<optim::scale_by_adam, optim::scale_by_learning_rate, optim::ema_weights>;
#endif
static_assert(rule::passes == 1);
