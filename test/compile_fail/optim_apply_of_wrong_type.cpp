// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A tensorwise stage whose apply takes something else would do nothing.
// first error gcc: `apply` cannot be called as.*scale_by_velocity>
// first error clang: scale_by_velocity.*`apply` cannot be called as
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
struct scale_by_velocity {
  using kind = optim::tensorwise;
#ifdef FAIL
  void apply(optim::tensor_update&) const {}
#else
  void apply(optim::tensor_update const&) const {}
#endif
  void observe(optim::tensor_update const&) const {}
};
static_assert(optim::chain<scale_by_velocity, optim::scale_by_learning_rate>::passes == 2);
