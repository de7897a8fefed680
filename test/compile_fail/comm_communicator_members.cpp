// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a communicator that would be left out is refused.
// mistakes: 7
// first error 3 gcc: `allow_other_thread\(\)`.*one_rank
// first error 3 clang: one_rank.*`allow_other_thread\(\)`
// first error 4 gcc: `sums` is not a `static constexpr comm::sum_order`.*one_rank
// first error 4 clang: one_rank.*`sums` is not a `static constexpr comm::sum_order`
// first error 5 gcc: `sums` is not a `static constexpr comm::sum_order`.*one_rank
// first error 5 clang: one_rank.*`sums` is not a `static constexpr comm::sum_order`
// first error 6 gcc: `comm::topology topology\(\) const`.*one_rank
// first error 6 clang: one_rank.*`comm::topology topology\(\) const`
// first error 7 gcc: `bool has_spare_core\(\) const`.*one_rank
// first error 7 clang: one_rank.*`bool has_spare_core\(\) const`
// first error gcc: `about\(comm::subject const&\)`.*one_rank
// first error clang: one_rank.*`about\(comm::subject const&\)`
#include <cstdint>

#include <dovetail/comm/async.hpp>
#include <dovetail/comm/self.hpp>

using namespace dovetail;
struct one_rank : comm::self {
#if FAIL == 1
  void about(std::int64_t, std::int64_t) {}
#elif FAIL == 2
  void about(comm::subject&) {}
#elif FAIL == 3
 private:
  void allow_other_thread() {}
#elif FAIL == 4
  static constexpr bool sums = true;
#elif FAIL == 5
  comm::sum_order sums = comm::sum_order::same_on_all;
#elif FAIL == 6
  std::int64_t topology() const { return 1; }
#elif FAIL == 7
  int has_spare_core(int) const { return 1; }
#endif
};
static_assert(sizeof(comm::async<one_rank>) > 0);
