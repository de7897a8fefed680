// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A kernel whose emit is another function is named, with what emit is.
// first error gcc: `emit` cannot be called as.*double_it>
// first error clang: double_it.*`emit` cannot be called as
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct double_it {
  using kind = optim::elementwise;
  struct kernel {
#ifdef FAIL
    template <class T>
    void emit(T, T&) const {}
#else
    template <class T>
    constexpr T emit(T, T u) const {
      return u + u;
    }
#endif
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<double_it, optim::scale_by_learning_rate>::passes == 1);
