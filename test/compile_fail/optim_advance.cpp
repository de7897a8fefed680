// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An advance that is not const, that has an argument too many, or that has no slot to change, would never run.
// mistakes: 3
// first error 3 gcc: the stage no `slots`.*scale_by_velocity>
// first error 3 clang: scale_by_velocity.*the stage no `slots`
// first error gcc: `advance` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`advance` cannot be called as
#include <array>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;
#if FAIL != 3
  static constexpr std::array slots{"velocity"};
#endif
  struct kernel {
    template <class T>
#if FAIL == 1
    constexpr void advance(T u, T& m) {
#elif FAIL == 2
    constexpr void advance(T, T u, T& m, T&) const {
#else
    constexpr void advance(T u, T& m) const {
#endif
      m = 0.9f * m + u;
    }
#if FAIL == 3
    template <class T>
    constexpr T emit(T, T u) const {
      return u + u;
    }
#else
    template <class T>
    constexpr T emit(T, T, T m) const {
      return m;
    }
#endif
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
