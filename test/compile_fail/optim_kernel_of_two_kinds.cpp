// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A kernel with emit and step: one of them would never run.
// first error gcc: has `emit` and `step`.*scale_by_velocity>
// first error clang: scale_by_velocity.*has `emit` and `step`
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;
  static constexpr std::array slots{"velocity"};
  struct kernel {
    template <class T>
    constexpr T step(T, T u, T& m) const {
      m = m + u;
      return m;
    }
#ifdef FAIL
    template <class T>
    constexpr T emit(T, T u, T m) const {
      return u + m;
    }
#endif
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
