// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compiled twice: with no more than -O2, and with all that the compiler can do. MAKE is the name of the factory.
#include <stdexcept>

#include <dovetail/optim.hpp>
#include <dovetail/optim/rules/registry.hpp>

#include "optim_step.hpp"

namespace bench {
namespace {
template <class Optimizer>
struct bound final : stepper {
  bound(Optimizer o, dovetail::parameter_list const& p, int threads)
      : optimizer(o), parameters(p), state(o.init(p)), options{.threads = threads} {}
  void step() override { optimizer.step(parameters, state, options); }

  Optimizer optimizer;
  dovetail::parameter_list const& parameters;
  dovetail::optim::state state;
  dovetail::optim::step_context options;
};
template <class Optimizer>
std::unique_ptr<stepper> bind(Optimizer o, dovetail::parameter_list const& p, int threads) {
  return std::make_unique<bound<Optimizer>>(o, p, threads);
}
}  // namespace

__attribute__((visibility("default"))) std::unique_ptr<stepper> MAKE(rule r, dovetail::parameter_list const& p,
                                                                     int threads) {
  namespace optim = dovetail::optim;
  switch (r) {
    case rule::sgd:
      return bind(optim::sgd{}, p, threads);
    case rule::momentum:
      return bind(optim::momentum{}, p, threads);
    case rule::adam:
      return bind(optim::adam{}, p, threads);
    case rule::six_stages:
      return bind(optim::chain{optim::scale{0.5f}, optim::clip_by_value{1}, optim::add_decayed_weights{1e-4f},
                               optim::scale_by_adam{}, optim::clip_by_value{1}, optim::scale_by_learning_rate{1e-3f}},
                  p, threads);
    case rule::adamw:
      return bind(optim::adamw{}, p, threads);
    case rule::adamw_by_name:
      return bind(optim::registry{}.add<optim::adamw>().make("adamw"), p, threads);
    case rule::clipped_adamw:
      return bind(optim::chain{optim::clip_by_global_norm{1}, optim::adamw{}}, p, threads);
    case rule::lars:
      return bind(optim::lars{}, p, threads);
    case rule::lamb:
      return bind(optim::lamb{}, p, threads);
  }
  throw std::logic_error("no such rule");
}
}  // namespace bench
