// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step cannot be skipped any more when state has changed.
// first error gcc: can skip a step only before stages that keep state.*optim::skip_non_finite
// first error clang: optim::skip_non_finite.*can skip a step only before stages that keep state
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/reducing.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::chain<optim::scale_by_adam, optim::skip_non_finite, optim::scale_by_learning_rate>;
#else
using rule = optim::chain<optim::skip_non_finite, optim::scale_by_adam, optim::scale_by_learning_rate>;
#endif
static_assert(rule::passes == 2);
