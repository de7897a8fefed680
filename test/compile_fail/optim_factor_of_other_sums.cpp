// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A factor takes as many sums as are measured.
// first error gcc: `factor` cannot be called.*scale_by_velocity>
// first error clang: scale_by_velocity.*`factor` cannot be called
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::reducing;
  static constexpr optim::reduction needs{};
  struct kernel {
    template <class T>
    constexpr std::array<optim::product<T>, 2> measure(T w, T u) const {
      return {optim::square(u), optim::square(w)};
    }
#ifdef FAIL
    constexpr float factor(std::array<double, 1> const& sums) const { return sums[0] > 1 ? 1.0f : 0.5f; }
#else
    constexpr float factor(std::array<double, 2> const& sums) const { return sums[0] > 1 ? 1.0f : 0.5f; }
#endif
    template <class T>
    constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 2);
