// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An advance with an argument too many would never run.
// first error gcc: `advance` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`advance` cannot be called as
#include <array>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;
  static constexpr std::array slots{"velocity"};
  struct kernel {
#ifdef FAIL
    template <class T>
    constexpr void advance(T, T u, T& m, T&) const {
      m = 0.9f * m + u;
    }
#else
    template <class T>
    constexpr void advance(T u, T& m) const {
      m = 0.9f * m + u;
    }
#endif
    template <class T>
    constexpr T emit(T, T, T m) const {
      return m;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
