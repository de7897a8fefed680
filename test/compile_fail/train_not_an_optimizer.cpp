// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A trainer names what is no optimizer.
// first error gcc: is no optimizer: it needs init\(parameters\).*, rule>
// first error clang: rule.*is no optimizer: it needs init\(parameters\)
#include <dovetail/comm/threads.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

using namespace dovetail;
struct model_type {
  parameter_list list;
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const&, gradient_pass const&) { return {}; }
};
#ifdef FAIL
struct rule {
  float lr = 0.1f;
};
#else
using rule = optim::sgd;
#endif
static_assert(sizeof(train::trainer<model_type, rule, sync::all_reduce<>, comm::threads>) > 0);
