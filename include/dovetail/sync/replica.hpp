// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::sync {

namespace detail {
/// Lists that sessions do not take.
template <class List>
concept other_list = !std::is_same_v<List, parameter_list>;
template <class List>
consteval bool refuse_list() {
  DOVETAIL_REQUIRE(!other_list<List>,
                   "ranks exchange floats in the host's memory (dovetail::parameter_list): a list of doubles, or of a "
                   "device's memory, is stepped by the optimizer itself, optimizer.step(parameters, state)",
                   List);
  return true;
}
}  // namespace detail

namespace detail {
/// What gradients that are summed over ranks are multiplied by: each rank weighs its losses by the count of all.
inline float scale_of_sums(std::int64_t global, char const* who) {
  require(global >= 1, who, ": gradient_scale of a step of ", global,
          " predictions on all ranks: there must be at least 1");
  return 1.f / static_cast<float>(global);
}
/// This rank's share of the loss, which its optimizer needs, to be made that of all ranks.
inline std::span<double> share_of_loss(optim::step_context& context, char const* who) {
  require(context.loss.has_value(), who,
          ": the optimizer needs the loss, and none was given: call step with step_context{.loss = this rank's sum of "
          "losses times gradient_pass::scale}, as train::trainer does");
  return {&*context.loss, 1};
}
/// Counts at its end: what is exchanged from then on is of another attempt at a step.
struct next_attempt {
  std::int64_t& n;
  ~next_attempt() { ++n; }
};
}  // namespace detail

/// What every session has, one of a program's own as well: a rank's parameters, the optimizer that steps them, and its
/// state. Knows what has been observed of layers since the last step, and forgets it when a step is not made. Refers to
/// the parameters. Not thread-safe.
template <class Optimizer>
class replica {
 public:
  using traits = optim::optimizer_traits<Optimizer>;
  using state_type = typename traits::state_type;

  replica(parameter_list& parameters, Optimizer const& opt)
      : parameters_(&parameters), optimizer_(opt), state_(opt.init(parameters)), needs_(optim::needs_of(opt)) {}

  parameter_list& parameters() const { return *parameters_; }
  Optimizer const& optimizer() const { return optimizer_; }
  state_type& state() { return state_; }
  /// What the optimizer does need, also one that is chosen when the program runs.
  optim::rule_needs const& needs() const { return needs_; }

  /// For gradient_pass::observe: empty unless the optimizer learns from layers. Valid as long as the replica.
  std::function<void(kfac_statistics const&)> observer() {
    if constexpr (traits::needs.layers)
      if (needs_.layers)
        return [this](kfac_statistics const& f) {
          observed_ = true;
          optimizer_.observe(*parameters_, state_, f);
        };
    return {};
  }
  void forget_observed() {
    if constexpr (traits::needs.layers)
      if (observed_) optim::forget_observed(optimizer_, *parameters_, state_);
    observed_ = false;
  }
  /// What layers have shown since the last step, to be added up over ranks.
  std::vector<std::span<float>> unreduced_statistics() requires(traits::needs.layers) {
    return optimizer_.unreduced_statistics(*parameters_, state_);
  }
  /// Gives an estimate of the Hessian's diagonal to the optimizer; false if it is not finite.
  bool observe(optim::hessian_diagonal const& d) requires(traits::needs.curvature) {
    return optimizer_.observe(*parameters_, state_, d);
  }

  /// Makes of gradients of the flat range that begins at `first` what ranks add up in their stead.
  void contribute(std::size_t first, std::span<float> gradients, int ranks) const requires(traits::contributes) {
    optimizer_.contribute(*parameters_, state_, first, gradients, ranks);
  }

  /// One step with the gradients of the parameters, or with those of a source.
  template <class... Source>
  optim::step_result step(optim::step_context const& context, trace* to, int rank, Source const&... source) {
    trace_span const stepping(to, "optimizer step", "optim", rank);
    in_step_ = true;
    last_ = optim::step_optimizer(optimizer_, *parameters_, state_, source..., context);
    in_step_ = false;
    if (last_.skipped) forget_observed();
    observed_ = false;
    return last_;
  }
  /// Whether a step has begun and was never completed, because it threw: weights and state are those of no step.
  bool half_made() const { return in_step_; }
  /// No step: the gradients are not finite.
  optim::step_result skip() {
    forget_observed();
    return {.skipped = true, .step = last_.step, .lr = last_.lr, .gradient_norm = -1};
  }

 private:
  parameter_list* parameters_;
  Optimizer optimizer_;
  state_type state_;
  optim::rule_needs needs_;
  optim::step_result last_;
  bool observed_ = false;  ///< since the last step
  bool in_step_ = false;
};

}  // namespace dovetail::sync
