// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stage without `prepare`, from which its kernel's type comes, is refused before that type is asked for, also where a
// chain is a value.
// first error gcc: this is not a stage: a stage has prepare\(step\).*, double_it>
// first error clang: double_it.*this is not a stage: a stage has prepare\(step\)
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct double_it {
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
