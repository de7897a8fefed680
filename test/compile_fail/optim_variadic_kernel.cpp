// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A parameter pack does not say whether its first argument is the weight.
// first error gcc: can be called with more arguments than it gets.*scale_by_velocity>
// first error clang: scale_by_velocity.*can be called with more arguments than it gets
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
    template <class T, class... More>
#ifdef FAIL
    constexpr void advance(T, More&...) const {
    }
#else
    constexpr void advance(T u, T& m) const {
      m = 0.9f * m + u;
    }
#endif
    template <class T>
    constexpr T emit(T, T u, T m) const {
      return u + m;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
