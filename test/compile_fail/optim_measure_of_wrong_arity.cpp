// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A measure with another number of arguments than slots would leave factor without its sums.
// first error gcc: `measure` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`measure` cannot be called as
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::reducing;
  static constexpr std::array slots{"velocity"};
  static constexpr optim::reduction needs{};
  struct kernel {
    template <class T>
    constexpr void advance(T u, T& m) const {
      m = 0.9f * m + u;
    }
    template <class T>
#ifdef FAIL
    constexpr std::array<optim::product<T>, 1> measure(T, T u) const {
      return {optim::square(u)};
    }
#else
    constexpr std::array<optim::product<T>, 1> measure(T, T, T m) const {
      return {optim::square(m)};
    }
#endif
    constexpr float factor(std::array<double, 1> const& sums) const { return sums[0] > 1 ? 1.0f : 0.5f; }
    template <class T>
    constexpr T emit(T, T u, T, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 2);
