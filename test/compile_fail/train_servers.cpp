// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The trainer does not take a synchronizer whose ranks have roles, and says what to write.
// first error gcc: has ranks that serve.*write the loop.*parameter_server
// first error clang: parameter_server.*has ranks that serve.*write the loop
#include <dovetail/comm/threads.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

using namespace dovetail;
struct model_type {
  parameter_list list;
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const&, gradient_pass const&) { return {}; }
};
void fit(data::in_memory const& data) {
#ifdef FAIL
  sync::parameter_server<> const policy;
#else
  sync::all_reduce<> const policy;
#endif
  train::trainer trainer{model_type{}, optim::sgd{}, policy, comm::threads{2}};
  trainer.fit(data);
}
