// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights that are divided among ranks: for optimizers that work on parts, and models that ask for them.
// mistakes: 5
// first error 1 gcc: needs more than parts of tensors and their gradients.*least
// first error 1 clang: least.*needs more than parts of tensors and their gradients
// first error 2 gcc: reads weights without asking for them.*sam
// first error 2 clang: sam.*reads weights without asking for them
// first error 3 gcc: `acquires` is not `static constexpr bool acquires.*asks
// first error 3 clang: asks.*`acquires` is not `static constexpr bool acquires
// first error 4 gcc: has acquire\(range\) and release\(range\), both.*half
// first error 4 clang: half.*has acquire\(range\) and release\(range\), both
// first error 5 gcc: needs more than parts of tensors and their gradients.*low_precision_state
// first error 5 clang: low_precision_state.*needs more than parts of tensors and their gradients
#include <string>
#include <vector>

#include <dovetail/comm/self.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/optim/low_precision.hpp>
#include <dovetail/optim/sam.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/sync/fully_sharded.hpp>
#include <dovetail/train/trainer.hpp>

using namespace dovetail;

struct least {  // says nothing of itself, and so needs whole tensors
  struct state {
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  state init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state&) const { return {}; }
};
struct asks {
#if FAIL == 3
  bool acquires = true;
#endif
};
struct half {
  void begin() {}
#if FAIL == 4
  void acquire(range) {}
#endif
};
#if FAIL == 1
using optimizer_type = least;
#elif FAIL == 5
using optimizer_type = optim::low_precision_state<optim::adamw, optim::blockwise_8bit>;
#else
using optimizer_type = optim::adamw;
#endif
inline void joined(parameter_list& p, optimizer_type const& opt, comm::self& c) { sync::fully_sharded{}.join(p, opt, c); }
static_assert(dovetail::detail::must_be_a_model<asks>::holds);
static_assert(sync::detail::must_be_a_session<half>::holds);

using small = nn::basic_network<nn::plain, nn::shape{2}, nn::dense<2>>;
inline void trained(data::in_memory const& d) {
  nn::with_loss<small, nn::softmax_cross_entropy> m{};
#if FAIL == 2
  train::trainer t{optim::sam{m}, optim::adamw{}, sync::fully_sharded{}, comm::self{}};
#else
  train::trainer t{m, optim::adamw{}, sync::fully_sharded{}, comm::self{}};
#endif
  t.fit(d, {});
}
