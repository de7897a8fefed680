// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A trainer names what is no model, and says what a model has.
// first error gcc: is no model: it needs parameters\(\) -> parameter_list& and gradients.*, spreadsheet>
// first error clang: spreadsheet.*is no model: it needs parameters\(\) -> parameter_list& and gradients
#include <dovetail/comm/threads.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

using namespace dovetail;
struct spreadsheet {
  parameter_list list;
  parameter_list& parameters() { return list; }
#ifdef FAIL
  loss_sums gradient(data::batch const&, gradient_pass const&) { return {}; }
#else
  loss_sums gradients(data::batch const&, gradient_pass const&) { return {}; }
#endif
};
static_assert(sizeof(train::trainer<spreadsheet, optim::sgd, sync::all_reduce<>, comm::threads>) > 0);
