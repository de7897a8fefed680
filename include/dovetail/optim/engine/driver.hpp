// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <type_traits>
#include <utility>

#include <dovetail/optim/engine/plan.hpp>

// The order in which a step's passes run, whoever runs them: the host's threads (optim/engine/engine.hpp) or a device's
// kernels (optim/cuda/engine.cuh).

namespace dovetail::optim::detail {

/// f(index) for the tensorwise stages that pass P stores the update for; `index` is an integral_constant.
template <class Flow, std::size_t P, class F>
void each_tensorwise(F const& f) {
  constexpr plan all = Flow::make();
  [&]<std::size_t... S>(std::index_sequence<S...>) {
    (f(std::integral_constant<std::size_t, all.pass[P].end + S>{}), ...);
  }
  (std::make_index_sequence<all.pass[P].tensorwise_end - all.pass[P].end>{});
}

/// Runs the passes of a flow from P on; false if the step turned out to be skipped. An executor has
///
///   launch<P>()        pass P over all elements; sums of blocks or pieces, if it reduces
///   fold<P>()          behind a pass with sums: adds them up, decides whether the step is skipped, makes the factors
///                      that waited for them. False if it is skipped, as far as the executor knows
///   map<P>()           behind a pass that stores the update: its tensorwise stages, on all tensors
///
/// and says `static constexpr bool by_tensor`: it would rather take one tensor after the other through all passes that
/// are left, where the plan allows that. Then it also has each_tensor(f), launch<P>(i) and map<P>(i).
template <class Flow, std::size_t P = 0, class Executor>
bool run_passes(Executor& executor) {
  constexpr plan all = Flow::make();
  if constexpr (P == all.passes) {
    return true;
  } else if constexpr (all.pass[P].stores && all.by_tensor && Executor::by_tensor) {
    executor.each_tensor([&](std::size_t i) {
      auto const one = [&]<std::size_t Q>() {
        executor.template launch<Q>(i);
        if constexpr (all.pass[Q].stores) executor.template map<Q>(i);
      };
      [&]<std::size_t... Q>(std::index_sequence<Q...>) { (one.template operator()<P + Q>(), ...); }
      (std::make_index_sequence<all.passes - P>{});
    });
    return true;
  } else {
    executor.template launch<P>();
    if constexpr (all.pass[P].reduces)
      if (!executor.template fold<P>()) return false;
    if constexpr (all.pass[P].stores) executor.template map<P>();
    return run_passes<Flow, P + 1>(executor);
  }
}

}  // namespace dovetail::optim::detail
