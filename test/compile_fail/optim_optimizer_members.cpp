// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an optimizer says of itself is a constant, and its members can be called.
// mistakes: 4
// first error 1 gcc: `static constexpr bool observes`, `needs_loss`.*rule
// first error 1 clang: rule.*`static constexpr bool observes`, `needs_loss`
// first error 2 gcc: `static constexpr bool observes`, `needs_loss`.*rule
// first error 2 clang: rule.*`static constexpr bool observes`, `needs_loss`
// first error 3 gcc: `static constexpr bool observes`, `needs_loss`.*rule
// first error 3 clang: rule.*`static constexpr bool observes`, `needs_loss`
// first error 4 gcc: check_state\(parameter_list const&, state const&\) const.*rule
// first error 4 clang: rule.*check_state\(parameter_list const&, state const&\) const
#include <string>
#include <vector>

#include <dovetail/core/state.hpp>
#include <dovetail/optim/optimizer_traits.hpp>

using namespace dovetail;
struct rule {
  struct state {
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
#if FAIL == 1
  bool needs_loss = true;
#elif FAIL == 2  // whose address would be true
  static constexpr bool whole_tensors() { return false; }
#elif FAIL == 3
  static constexpr bool whole_tensors = false;
  static constexpr double division_block = 1.5;
#else
  static constexpr bool whole_tensors = false;
#endif
#if FAIL == 4
  void check_state(state const&) const {}
#endif
  state init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state&) const { return {}; }
};
inline optim::step_result step(rule const& r, parameter_list const& p, rule::state& s) {
  return optim::step_optimizer(r, p, s, {});
}
