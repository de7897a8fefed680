// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A kernel that is told the loss, but takes it otherwise, would never be told.
// first error gcc: `evaluated` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`evaluated` cannot be called as
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;

  struct kernel {
    float loss = 0;
#ifdef FAIL
    constexpr void evaluated(double, int) {}
#else
    constexpr void evaluated(double x) { loss = static_cast<float>(x); }
#endif
    template <class T>
    constexpr T emit(T, T u) const {
      return loss * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
