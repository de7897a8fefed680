// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

// What a step is told, and what it tells.

namespace dovetail::optim {

/// How the work of tensorwise stages is divided among ranks that hold the same parameters and gradients: each tensor's
/// is done by one rank.
struct distributed_preconditioning {
  int rank = 0, ranks = 1;
  /// In place: rank r has the elements from first[r] to first[r + 1], and all get all. Every rank calls it alike.
  std::function<void(std::span<float> all, std::span<std::size_t const> first)> gather = {};
};

/// What a step knows beside parameters and state. A session passes on what its caller says and adds what ranks share;
/// groups, low precision and shards hand it to every rule. `gradient_factor` and `loss` are part of the result; what
/// else it has changes no result, but who works it out.
struct step_context {
  int threads = 1;  ///< cores to use; small steps use fewer
  /// Gradients are multiplied by it as they are read: 1 / the loss scale, or 1 / the number of gradients that were
  /// added up. An optimizer whose step takes no context has those of the parameter list multiplied in memory, where
  /// they stay so.
  float gradient_factor = 1;
  /// What the gradients are the gradients of, for rules that need it (such as optim/rules/momo.hpp); others ignore it.
  /// A loss that is not finite skips the step of the rule that needs it. Not scaled, also where the gradients are
  /// (gradient_factor, loss_scale). To a synchronizer's session: this rank's share, if the session adds up gradients;
  /// of a pass, the sum of losses times gradient_pass::scale.
  std::optional<double> loss = {};
  /// Called between passes with this process's sums, so that ranks that hold parts of the parameters can add them
  /// (all_reduce) and norms stay those of the whole. Sums per tensor: some of every tensor, so every rank must list the
  /// same tensors, where it has none of a tensor as an empty one; otherwise some of all together.
  std::function<void(std::span<double>)> all_reduce_sums = {};
  distributed_preconditioning preconditioning = {};
  /// The gradients are what ranks have made of theirs by the optimizer's `contribute`, added up.
  bool contributed = false;
};

/// What one step did.
struct step_result {
  bool skipped = false;       ///< a gradient was not finite: weights and state are as before
  std::int64_t step = 0;      ///< steps applied so far, this one included
  float lr = 0;               ///< learning rate of this step
  double gradient_norm = -1;  ///< L2 norm of the gradient, where the chain measures it; -1 otherwise
};

namespace detail {
/// Throws argument_error if the loss that a rule needs is not given.
DOVETAIL_COLD inline void check_loss(step_context const& context) {
  require(context.loss.has_value(),
          "optimizer: this rule's steps depend on the loss, and none was given: call step with "
          "step_context{.loss = ...}, as train::trainer does");
}
/// Throws argument_error for a rate that is negative or not finite, which would go into every weight.
DOVETAIL_COLD inline void check_rate(float const& rate, std::int64_t step) {
  require(is_finite(rate) && rate >= 0, "optimizer: the learning rate of step ", step, " is ", rate,
          ": nothing was changed; give a finite number that is not negative, or a schedule that returns one");
}
/// Throws argument_error if a rule that learns from layers was shown none.
DOVETAIL_COLD inline void check_observed(bool observed) {
  require(observed,
          "optimizer: this rule learns from what layers show in backward, and none was observed: train with "
          "sync::all_reduce or train::trainer, or have gradient_pass::observe call this optimizer's observe");
}
}  // namespace detail

}  // namespace dovetail::optim
