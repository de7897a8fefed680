// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <functional>
#include <span>

namespace dovetail::optim {

/// How a step is run; no option changes its result, except `combine`.
struct step_options {
  int threads = 1;  ///< cores to use; small steps use fewer
  /// Called between passes with this process's sums of squares, so that ranks that hold parts of the parameters can
  /// add them (all_reduce) and norms stay those of the whole. Per-tensor norms: (update, weight) of every tensor, so
  /// every rank must list the same tensors, where it has none of a tensor as an empty one; otherwise one such pair.
  std::function<void(std::span<double>)> combine = {};
};

}  // namespace dovetail::optim
