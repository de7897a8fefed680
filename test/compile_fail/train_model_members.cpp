// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a model that a trainer would leave out, or could not use, is refused.
// mistakes: 6
// first error 1 gcc: `loss_sums evaluate\(data::batch const&, int threads\)`.*line
// first error 1 clang: line.*`loss_sums evaluate\(data::batch const&, int threads\)`
// first error 2 gcc: `loss_sums evaluate\(data::batch const&, int threads\)`.*line
// first error 2 clang: line.*`loss_sums evaluate\(data::batch const&, int threads\)`
// first error 3 gcc: `loss_sums evaluate\(data::batch const&, int threads\)`.*line
// first error 3 clang: line.*`loss_sums evaluate\(data::batch const&, int threads\)`
// first error 4 gcc: cannot be assigned.*line
// first error 4 clang: line.*cannot be assigned
// first error 5 gcc: `static constexpr bool evaluates = ...`.*line
// first error 5 clang: line.*`static constexpr bool evaluates = ...`
// first error 6 gcc: `loss_sums evaluate\(data::batch const&, int threads\)`.*line
// first error 6 clang: line.*`loss_sums evaluate\(data::batch const&, int threads\)`
#include <dovetail/comm/threads.hpp>
#include <dovetail/optim/rules/sgd.hpp>
#include <dovetail/sync/all_reduce.hpp>
#include <dovetail/train/trainer.hpp>

using namespace dovetail;
struct line {
  parameter_list list;
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const&, gradient_pass const&) { return {}; }
#if FAIL == 1
  loss_sums evaluate(data::batch const&) { return {}; }
#elif FAIL == 2
  loss_sums evaluate(data::batch&, int) { return {}; }
#elif FAIL == 3
 private:
  loss_sums evaluate(data::batch const&, int) { return {}; }
#elif FAIL == 5
  bool evaluates = false;
#elif FAIL == 6  // there is none
  static constexpr bool evaluates = true;
#elif FAIL == 4
  int const width = 1;
#endif
};
static_assert(sizeof(train::trainer<line, optim::sgd, sync::all_reduce<>, comm::threads>) > 0);
