// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage that takes in curvature says into which slot.
// first error gcc: divides by the Hessian.*diagonal has.*turned>
// first error clang: turned.*divides by the Hessian.*diagonal has
#include <array>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct turned {
  using kind = optim::elementwise;
  static constexpr std::array slots{"diagonal"};
#ifndef FAIL
  static constexpr std::size_t curvature_slot = 0;
#endif
  float observed(float, float estimate) const { return estimate; }
  struct kernel {
    template <class T>
    constexpr T emit(T, T u, T) const {
      return u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<turned, optim::scale_by_learning_rate>::passes == 1);
