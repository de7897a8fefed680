// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage says its kind.
// first error gcc: this is not a stage: a stage is a class, not final, that says.*scale_by_velocity>
// first error clang: scale_by_velocity.*this is not a stage: a stage is a class, not final, that says
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
#ifndef FAIL
  using kind = optim::elementwise;
#endif

  struct kernel {
    template <class T>
    constexpr T emit(T, T u) const {
      return u + u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
