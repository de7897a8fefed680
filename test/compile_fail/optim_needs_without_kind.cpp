// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An elementwise stage cannot ask for sums.
// first error gcc: a reducing stage, and no other, says.*scale_by_velocity>
// first error clang: scale_by_velocity.*a reducing stage, and no other, says
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
#ifdef FAIL
  using kind = optim::elementwise;
#else
  using kind = optim::reducing;
#endif
  static constexpr optim::reduction needs{};
  struct kernel {
    constexpr float factor(optim::norms const& n) const { return n.update > 1 ? 1.0f : 0.5f; }
    template <class T>
    constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 2);
