// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An advance of a stage that keeps nothing.
// first error gcc: the stage no `slots`.*scale_by_velocity>
// first error clang: scale_by_velocity.*the stage no `slots`
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;

  struct kernel {
#ifdef FAIL
    template <class T>
    constexpr void advance(T, T&) const {}
#endif
    template <class T>
    constexpr T emit(T, T u) const {
      return u + u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
