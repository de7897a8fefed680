// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The learning rate turns an update into a step; a stage behind it would work on something else.
// first error gcc: nothing can come after the stage that ends a chain: move.*optim::scale_by_adam.*optim::scale_by_learning_rate
// first error clang: optim::scale_by_adam.*optim::scale_by_learning_rate.*nothing can come after the stage that ends a chain
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::chain<optim::scale_by_learning_rate, optim::scale_by_adam>;
#else
using rule = optim::chain<optim::scale_by_adam, optim::scale_by_learning_rate>;
#endif
static_assert(rule::passes == 1);
