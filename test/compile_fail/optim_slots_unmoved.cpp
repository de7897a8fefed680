// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage whose `advance` is misspelt, is not const or takes other arguments would be a stage whose slots stay 0.
// first error gcc: nothing changes the slots of this stage: its kernel has advance.*, scale_by_velocity>
// first error clang: scale_by_velocity.*nothing changes the slots of this stage: its kernel has advance
#include <array>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  static constexpr std::array slots{"velocity"};
  struct kernel {
    template <class T>
#ifdef FAIL
    constexpr void advanse(T u, T& m) const {
#else
    constexpr void advance(T u, T& m) const {
#endif
        m = 0.9f * m + u;
  } template <class T>
  constexpr T emit(T, T, T m) const {
    return m;
  }
};
constexpr kernel prepare(std::int64_t) const { return {}; }
}
;
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
