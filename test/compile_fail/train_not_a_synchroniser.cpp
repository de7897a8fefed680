// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A trainer names what is no synchronizer: here a codec where the synchronizer that takes it belongs.
// first error gcc: is no synchronizer.*sync::all_reduce\{codec\}.*top_k>
// first error clang: top_k.*is no synchronizer.*sync::all_reduce\{codec\}
#include <dovetail/comm/threads.hpp>
#include <dovetail/compress.hpp>
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
  train::trainer trainer{model_type{}, optim::sgd{}, compress::top_k{}, comm::threads{2}};
#else
  train::trainer trainer{model_type{}, optim::sgd{}, sync::all_reduce{compress::error_feedback{compress::top_k{}}},
                         comm::threads{2}};
#endif
  trainer.fit(data);
}
