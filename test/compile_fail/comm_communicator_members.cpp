// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a communicator that would be left out is refused.
// mistakes: 4
// first error 3 gcc: `allow_other_thread\(\)`.*one_rank
// first error 3 clang: one_rank.*`allow_other_thread\(\)`
// first error 4 gcc: `bool has_spare_core\(\) const`.*one_rank
// first error 4 clang: one_rank.*`bool has_spare_core\(\) const`
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
  int has_spare_core(int) const { return 1; }
#endif
};
static_assert(sizeof(comm::async<one_rank>) > 0);
