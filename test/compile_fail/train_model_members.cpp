// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a model that a trainer would leave out, or could not use, is refused.
// mistakes: 12
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
// first error 7 gcc: `std::vector<named_tensor> buffers\(\)`.*line
// first error 7 clang: line.*`std::vector<named_tensor> buffers\(\)`
// first error 8 gcc: `std::vector<named_tensor> buffers\(\)`.*line
// first error 8 clang: line.*`std::vector<named_tensor> buffers\(\)`
// first error 9 gcc: `std::int64_t predictions\(data::batch const&\)`.*line
// first error 9 clang: line.*`std::int64_t predictions\(data::batch const&\)`
// first error 10 gcc: `bool masks\(\)`.*line
// first error 10 clang: line.*`bool masks\(\)`
// first error 11 gcc: a model with `masks` also has `std::int64_t predictions\(data::batch const&\)`.*line
// first error 11 clang: line.*a model with `masks` also has `std::int64_t predictions\(data::batch const&\)`
// first error 12 gcc: `static constexpr bool buffered = ...`.*line
// first error 12 clang: line.*`static constexpr bool buffered = ...`
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
#elif FAIL == 7
  std::vector<float> buffers() { return {}; }
#elif FAIL == 8
  std::vector<named_tensor> buffers;
#elif FAIL == 9
  std::int64_t predictions(data::batch&) { return 1; }
#elif FAIL == 10
  std::int64_t predictions(data::batch const&) { return 1; }
  bool masks(data::batch const&) { return true; }
#elif FAIL == 11
  bool masks() { return true; }
#elif FAIL == 12
  bool buffered = false;
#elif FAIL == 4
  int const width = 1;
#endif
};
static_assert(sizeof(train::trainer<line, optim::sgd, sync::all_reduce<>, comm::threads>) > 0);
