// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A type that is no stage is named, with what it lacks.
// first error gcc: this is not a stage: a stage has prepare\(step\).*, double_it>
// first error clang: double_it.*this is not a stage: a stage has prepare\(step\)
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct double_it {
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
