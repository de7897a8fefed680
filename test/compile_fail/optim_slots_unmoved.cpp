// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage whose `advance` is misspelt would be a stage whose slots stay 0.
// first error gcc: nothing changes this slot.*scale_by_velocity, .*slot_called<.*
// first error clang: scale_by_velocity.*slot_called<.*nothing changes this slot
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
    constexpr void advanse(T u, T& m) const {
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
