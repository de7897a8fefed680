// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <functional>
#include <optional>
#include <span>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::optim {

/// How the work of tensorwise stages is divided among ranks that hold the same parameters and gradients: each tensor's
/// is done by one rank.
struct distributed_preconditioning {
  int rank = 0, ranks = 1;
  /// In place: rank r has the elements from first[r] to first[r + 1], and all get all. Every rank calls it alike.
  std::function<void(std::span<float> all, std::span<std::size_t const> first)> gather = {};
};

/// How a step is run; no option changes its result, except `all_reduce_sums` and `loss`.
struct step_options {
  int threads = 1;  ///< cores to use; small steps use fewer
  /// Called between passes with this process's sums, so that ranks that hold parts of the parameters can add them
  /// (all_reduce) and norms stay those of the whole. Sums per tensor: some of every tensor, so every rank must list the
  /// same tensors, where it has none of a tensor as an empty one; otherwise some of all together.
  std::function<void(std::span<double>)> all_reduce_sums = {};
  distributed_preconditioning preconditioning = {};
  /// What the gradients are the gradients of, for rules that need it (such as optim/rules/momo.hpp); others ignore it.
  /// A loss that is not finite skips the step. Not scaled, also where the gradients are (gradient::scaled, loss_scale).
  /// To a synchronizer's session: this rank's share, if the session adds up gradients; of a pass, the sum of losses
  /// times gradient_pass::scale.
  std::optional<double> loss = {};
};

namespace detail {
/// Throws argument_error if the loss that a rule needs is not given.
DOVETAIL_COLD inline void check_loss(step_options const& options) {
  require(options.loss.has_value(),
          "optimizer: this rule's steps depend on the loss, and none was given: call step with "
          "step_options{.loss = ...}, as train::trainer does");
}
}  // namespace detail

}  // namespace dovetail::optim
