// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A reducing stage without factors passes the update through: its emit would never run.
// first error gcc: a reducing stage has `emit` and no `factor`.*scale_by_velocity>
// first error clang: scale_by_velocity.*a reducing stage has `emit` and no `factor`
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
#ifndef FAIL
    constexpr float factor(optim::norms const& n) const { return n.update > 1 ? 1.0f : 0.5f; }
    template <class T>
    constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
#else
    template <class T>
    constexpr T emit(T, T u) const {
      return 0.5f * u;
    }
#endif
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 2);
