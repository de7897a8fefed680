// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage without `prepare`, from which its kernel's type comes, is refused before that type is asked for, also where a
// chain is a value.
// first error gcc: `prepare` cannot be called as.*double_it>
// first error clang: double_it.*`prepare` cannot be called as
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct double_it {
  using kind = optim::elementwise;
  struct kernel {
    template <class T>
    constexpr T emit(T, T u) const {
      return u + u;
    }
  };
#ifdef FAIL
  constexpr kernel prepair(std::int64_t) const { return {}; }
#else
  constexpr kernel prepare(std::int64_t) const { return {}; }
#endif
};
optim::chain rule{double_it{}, optim::scale_by_learning_rate{0.1f}};
