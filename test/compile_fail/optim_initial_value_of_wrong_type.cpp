// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An initial value that is not asked for its slot would be left out.
// first error gcc: `initial_value` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`initial_value` cannot be called as
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
    constexpr void advance(T u, T& m) const {
      m = 0.9f * m + u;
    }
    template <class T>
    constexpr T emit(T, T u, T m) const {
      return u + m;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
#ifdef FAIL
  constexpr float initial_value() const { return 1; }
#else
  constexpr float initial_value(std::size_t) const { return 1; }
#endif
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
