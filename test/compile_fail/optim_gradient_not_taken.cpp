// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage that says it reads the gradient, and has no argument for it.
// first error gcc: `emit` cannot be called as.*turned>
// first error clang: turned.*`emit` cannot be called as
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct turned {
  using kind = optim::elementwise;
  static constexpr bool reads_gradient = true;
  struct kernel {
    template <class T>
    constexpr T emit(
#ifdef FAIL
        T, T u
#else
        T, T u, T
#endif
    ) const {
      return u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<turned, optim::scale_by_learning_rate>::passes == 1);
