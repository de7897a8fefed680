// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage with a learning rate is given it, so that it is the same number on the host and on a device.
// first error gcc: its prepare is `prepare\(std::int64_t step, float rate\) const`.*scale_by_velocity>
// first error clang: scale_by_velocity.*its prepare is
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::elementwise;

  struct kernel {
    float rate = 0;
    template <class T>
    constexpr T emit(T, T u) const {
      return rate * u;
    }
  };
  constexpr float learning_rate(std::int64_t t) const { return 1.0f / static_cast<float>(t); }
#ifdef FAIL
  constexpr kernel prepare(std::int64_t t) const { return {learning_rate(t)}; }
#else
  constexpr kernel prepare(std::int64_t, float rate) const { return {rate}; }
#endif
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 1);
