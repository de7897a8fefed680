// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an optimizer says of itself is a constant, and its members can be called.
// mistakes: 7
// first error 1 gcc: `static constexpr bool steps_together`.*rule
// first error 1 clang: rule.*`static constexpr bool steps_together`
// first error 2 gcc: its `needs` is not `static constexpr optim::rule_needs.*rule
// first error 2 clang: rule.*its `needs` is not `static constexpr optim::rule_needs
// first error 3 gcc: `static constexpr bool steps_together`.*rule
// first error 3 clang: rule.*`static constexpr bool steps_together`
// first error 4 gcc: check_state\(parameter_list const&, state const&\) const.*rule
// first error 4 clang: rule.*check_state\(parameter_list const&, state const&\) const
// first error 5 gcc: check_next_step\(parameter_list const&, state const&, step_context const&\) const.*rule
// first error 5 clang: rule.*check_next_step\(parameter_list const&, state const&, step_context const&\) const
// first error 6 gcc: contribute\(parameter_list const&, state const&, std::size_t first, .*rule
// first error 6 clang: rule.*contribute\(parameter_list const&, state const&, std::size_t first, 
// first error 7 gcc: has contribute, and its step does not take the context.*rule
// first error 7 clang: rule.*has contribute, and its step does not take the context
#include <cstddef>
#include <span>
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
  bool steps_together = true;
#elif FAIL == 2
  static constexpr optim::rule_needs needs() { return {}; }
#elif FAIL == 3
  static constexpr optim::rule_needs needs{.whole_tensors = false};
  static constexpr double division_block = 1.5;
#else
  static constexpr optim::rule_needs needs{.whole_tensors = false};
#endif
#if FAIL == 4
  void check_state(state const&) const {}
#elif FAIL == 5
  void check_next_step(state const&) const {}
#elif FAIL == 6
  void contribute(parameter_list const&, state const&, std::span<float>, int) const {}
#elif FAIL == 7
  void contribute(parameter_list const&, state const&, std::size_t, std::span<float>, int) const {}
#endif
  state init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state&) const { return {}; }
};
inline optim::step_result step(rule const& r, parameter_list const& p, rule::state& s) {
  return optim::step_optimizer(r, p, s, {});
}
