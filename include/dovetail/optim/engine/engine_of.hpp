// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

#include <dovetail/core/memory.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/step.hpp>

// Where parameters are says which engine steps them: init, step and observe of an optimizer are the same calls on lists
// of the host's memory and of a device's.

namespace dovetail::optim {

/// The engine of a kind of memory that is not the host's. A specialization, which a program includes with its header
/// (optim/cuda/engine.cuh), has
///
///   init(optimizer, parameters, source)                  a state in that memory
///   step(optimizer, parameters, state, source, context)  queues a step; gives what step_result can be had from
///   observe(optimizer, parameters, state, observation)   takes in a layer or an estimate of curvature; gives nothing,
///                                                        because an estimate that is not finite is known only later
template <class Space>
struct engine_of {
  DOVETAIL_REQUIRE(sizeof(Space) == 0,
                   "parameters in this memory are stepped by an engine that is not included: for cuda_memory include "
                   "<dovetail/optim/cuda/engine.cuh> in a file that nvcc compiles (with partition.cuh, "
                   "low_precision_state.cuh or matrix.cuh beside it for what is there)",
                   Space);
};

namespace detail {
template <class Space>
concept other_memory = !std::is_same_v<Space, host_memory>;
}  // namespace detail

}  // namespace dovetail::optim

/// For a class of optimizers: init, step and observe of lists in other memory than the host's, by its engine.
#define DOVETAIL_OTHER_MEMORY                                                                                   \
  template <class T, ::dovetail::optim::detail::other_memory Space, class... Source>                            \
  auto init(::dovetail::basic_parameter_list<T, Space> const& parameters, Source const&... source) const {      \
    return ::dovetail::optim::engine_of<Space>::init(*this, parameters, source...);                             \
  }                                                                                                             \
  template <class T, ::dovetail::optim::detail::other_memory Space, class State>                                \
  auto step(::dovetail::basic_parameter_list<T, Space> const& parameters, State& s,                             \
            ::dovetail::optim::step_context const& context = {}) const {                                        \
    return ::dovetail::optim::engine_of<Space>::step(*this, parameters, s, context);                            \
  }                                                                                                             \
  template <class T, ::dovetail::optim::detail::other_memory Space, class State,                                \
            ::dovetail::optim::detail::source_argument Source>                                                  \
  auto step(::dovetail::basic_parameter_list<T, Space> const& parameters, State& s, Source const& source,       \
            ::dovetail::optim::step_context const& context = {}) const {                                        \
    return ::dovetail::optim::engine_of<Space>::step(*this, parameters, s, source, context);                    \
  }                                                                                                             \
  template <class T, ::dovetail::optim::detail::other_memory Space, class State, class Observation>             \
  void observe(::dovetail::basic_parameter_list<T, Space> const& parameters, State& s, Observation const& seen) \
      const {                                                                                                   \
    ::dovetail::optim::engine_of<Space>::observe(*this, parameters, s, seen);                                   \
  }
