// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lion's update is made of the average that it replaces: no second evaluation once a norm is known.
// first error gcc: cannot be evaluated again behind a reduction: move the reduction before it.*optim::scale_by_trust_ratio
// first error clang: optim::scale_by_trust_ratio.*cannot be evaluated again behind a reduction: move the reduction before it
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/stages/reducing.hpp>

using namespace dovetail;
#ifdef FAIL
using rule = optim::chain<optim::scale_by_lion, optim::scale_by_trust_ratio, optim::scale_by_learning_rate>;
#else
using rule = optim::chain<optim::scale_by_trust_ratio, optim::scale_by_lion, optim::scale_by_learning_rate>;
#endif
static_assert(rule::passes == 2);
