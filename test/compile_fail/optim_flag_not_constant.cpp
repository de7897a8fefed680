// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A flag that is no constant would not be seen.
// first error gcc: are `static constexpr bool`.*turned>
// first error clang: turned.*are `static constexpr bool`
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct turned {
  using kind = optim::elementwise;
#ifdef FAIL
  bool exact_slots = true;
#else
  static constexpr bool exact_slots = true;
#endif
  struct kernel {
    template <class T>
    constexpr T emit(T, T u) const {
      return u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<turned, optim::scale_by_learning_rate>::passes == 1);
