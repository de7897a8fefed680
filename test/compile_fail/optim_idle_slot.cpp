// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A slot that no function assigns to stays 0.
// first error gcc: nothing changes this slot.*scale_by_velocity, .*slot_called<.*second
// first error clang: scale_by_velocity.*slot_called<.*nothing changes this slot
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;
  static constexpr std::array slots{"velocity", "second"};
  struct kernel {
    template <class T>
    constexpr void advance(T u, T& m, [[maybe_unused]] T& v) const {
      m = 0.9f * m + u;
#ifndef FAIL
      v = v + u * u;
#endif
    }
    template <class T>
    constexpr T emit(T, T u, T m, T v) const {
      return u + m + v;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
