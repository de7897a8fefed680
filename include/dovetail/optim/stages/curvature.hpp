// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/state.hpp>

// Feeds the slot `hessian_diagonal` of rules that divide by the diagonal of the Hessian, outside of the step and every
// few steps: a step stays one pass over memory.

namespace dovetail::optim {

/// What an estimate of a diagonal is averaged over: nothing; the inner extents of a tensor of rank 3 or more (the
/// kernel of a convolution); all extents but the first (a row: what belongs to one output).
enum class spatial : std::uint8_t { none, kernel, row };

namespace detail {
inline constexpr char spatial_names[] = "none kernel row";
template <class S>
inline constexpr bool observes_curvature = requires(S const s) {
  S::curvature_slot;
  s.observed(1.0f, 1.0f);
};

/// Replaces each block of the estimate by its mean.
inline void average_blocks(std::span<float> values, std::size_t block) {
  for (std::size_t i = 0; block > 1 && i + block <= values.size(); i += block) {
    auto const part = values.subspan(i, block);
    double sum = 0;
    for (float const x : part) sum += static_cast<double>(x);
    std::fill(part.begin(), part.end(), static_cast<float>(sum / static_cast<double>(block)));
  }
}
/// Elements of one block of a tensor.
inline std::size_t block_of(spatial average, shape const& s) {
  int const first = average == spatial::kernel ? 2 : 1;
  if (average == spatial::none || s.rank <= first) return 1;
  std::size_t n = 1;
  for (int d = first; d < s.rank; ++d) n *= static_cast<std::size_t>(s[d]);
  return n;
}
}  // namespace detail

/// Gives an estimate of the Hessian's diagonal, in the flat index space of the parameters (hutchinson_diagonal,
/// bartlett_diagonal), to the stage of the rule that wants one: every few steps, between steps, the same on all ranks.
/// An estimate that is not finite changes nothing, and the return value is false. The estimate may be overwritten by
/// its averages. Throws argument_error when sizes do not fit.
template <class Rule>
bool observe_curvature(Rule const& rule, parameter_list const& parameters, state& s, std::span<float> estimate) {
  auto const stages = detail::stages_of(rule);
  using list = std::remove_cvref_t<decltype(stages)>;
  constexpr std::size_t count = []<std::size_t... I>(std::index_sequence<I...>) {
    return (std::size_t{0} + ... + (detail::observes_curvature<std::tuple_element_t<I, list>> ? 1u : 0u));
  }
  (std::make_index_sequence<std::tuple_size_v<list>>{});
  DOVETAIL_REQUIRE(count == 1,
                   "observe_curvature: the chain must have exactly one stage that wants the Hessian's diagonal: "
                   "scale_by_adahessian or scale_by_sophia",
                   Rule);
  require(estimate.size() == parameters.flat_size(), "observe_curvature: an estimate of ", estimate.size(),
          " elements, there are ", parameters.flat_size(), " parameters");
  if (!all_finite(estimate)) return false;
  std::size_t first = 0;
  auto const write = [&](auto const& stage) {
    using S = std::remove_cvref_t<decltype(stage)>;
    if constexpr (detail::observes_curvature<S>) {
      require(first + S::curvature_slot < s.slots() && s.slot(first).size() == estimate.size(),
              "observe_curvature: the state was made by another rule or for other parameters: make it with this one's "
              "init()");
      if constexpr (requires { stage.average; })
        for (std::size_t i = 0; i < parameters.size(); ++i)
          detail::average_blocks(estimate.subspan(parameters.offset(i), parameters[i].size()),
                                 detail::block_of(stage.average, parameters[i].shape));
      auto const h = s.slot(first + S::curvature_slot);
      for (std::size_t i = 0; i < h.size(); ++i) h[i] = stage.observed(h[i], estimate[i]);
    }
    first += stage_traits<S>::slots;
  };
  std::apply([&](auto const&... stage) { (write(stage), ...); }, stages);
  return true;
}

}  // namespace dovetail::optim
