// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Replicas that add the same gradients must get the same bits: a communicator that does not promise it is refused.
// mistakes: 3
// first error gcc: may give its ranks different sums, so replicas would not stay equal: use one whose `sums`.*loose
// first error clang: loose.*may give its ranks different sums, so replicas would not stay equal: use one whose `sums`
#include <dovetail/comm/self.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

struct loose : comm::self {
#ifdef FAIL
  static constexpr comm::sum_order sums = comm::sum_order::unspecified;
#else
  static constexpr comm::sum_order sums = comm::sum_order::same_on_all;
#endif
};

void train([[maybe_unused]] parameter_list& parameters, [[maybe_unused]] loose& comm) {
#if !defined(FAIL) || FAIL == 1
  auto together = sync::all_reduce{}.join(parameters, optim::adamw{}, comm);
#endif
#if !defined(FAIL) || FAIL == 2
  auto apart = sync::local_sgd{}.join(parameters, optim::adamw{}, comm);
#endif
#if !defined(FAIL) || FAIL == 3
  auto const opt = sync::shard(optim::adamw{}, comm);
#endif
}
