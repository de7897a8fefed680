// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A state that does not say what belongs to which elements cannot be put together from ranks' parts.
// first error gcc: cannot put this state together or cut it: give it divisible_arrays.*counting::state_type
// first error clang: counting::state_type.*cannot put this state together or cut it: give it divisible_arrays
#include <dovetail/comm/self.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <vector>

using namespace dovetail;

struct counting {
  struct state_type {
    std::int64_t steps = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) { return {make_named_tensor(prefix + "step", steps)}; }
#ifndef FAIL
    std::vector<optim::divisible_array> divisible_arrays() { return {optim::equal_everywhere(steps)}; }
#endif
    friend bool operator==(state_type const&, state_type const&) = default;
  };
  state_type init(parameter_list const&) const { return {}; }
  template <optim::gradient_source Source>
  optim::step_result step(parameter_list const&, state_type& s, Source const&, optim::step_context const&) const {
    return {.step = ++s.steps};
  }
};

auto together(parameter_list& parameters, comm::self& comm) {
  auto const opt = sync::shard(counting{}, comm);
  auto state = opt.init(parameters);
  return opt.gathered(parameters, state);
}
