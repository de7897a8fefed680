// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/optim/tensorwise.hpp>

// How engines call tensorwise stages, and how ranks divide what these have to work out.

namespace dovetail::optim {

namespace detail {

/// Throws argument_error unless the tensor that begins where the layer says (null: none does) is its weight {out, in}:
/// what a rule keeps of a layer is sized by that, and what is read of `f` by both.
template <class T>
DOVETAIL_COLD void check_layer(basic_kfac_statistics<T> const& f, shape const* weight, char const* whose) {
  auto const rows = weight ? static_cast<std::int64_t>(tensor_update::rows_of(*weight)) : 0;
  require(weight && weight->size() > 0 && f.in > 0 && rows == f.out && weight->size() / rows == f.in, whose,
          ": a layer of ", f.in, " inputs and ", f.out, " outputs was observed at flat index ", f.first,
          weight ? message(", where a tensor of shape ", *weight, " begins") : ", where no such tensor begins",
          ": observe the model whose parameters init() was given");
  require(f.rows >= 0 && f.positions > 0 && (f.rows == 0 || (f.inputs && f.output_gradients)), whose, ": a layer of ",
          f.rows, " rows and ", f.positions, " positions was observed: rows cannot be negative nor without memory");
}

/// What a stage does with a tensor, a basic_tensor_update of some algebra.
template <class S, class Tensor>
inline constexpr bool observes_with = requires(S const& s, Tensor const& t) {
  s.observe(t);
};
template <class S, class Tensor>
inline constexpr bool solves_with = requires(S const& s, Tensor const& t) {
  s.solve(t);
};
template <class S, class Tensor>
inline constexpr bool applies_with = requires(S const& s, Tensor const& t) {
  s.apply(t);
};
template <class S, class Tensor>
inline constexpr bool collects_with = requires(S const& s, Tensor const& t,
                                               basic_kfac_statistics<typename Tensor::real> const& f) {
  s.collect(t, f);
};
/// A stage that does with such a tensor all that it does on the host.
template <class S, class Tensor>
inline constexpr bool written_for =
    observes_with<S, Tensor> == observes_with<S, tensor_update>&& solves_with<S, Tensor> ==
    stage_traits<S>::solves&& applies_with<S, Tensor> == applies_with<S, tensor_update>&& collects_with<S, Tensor> ==
    stage_traits<S>::collects;

/// Copies a column-major tensor row by row, or with `back` one in rows into columns; `shape` is the tensor's as it was
/// registered. Both have room for it and do not overlap.
template <class T>
DOVETAIL_COLD void turn(dovetail::shape const& shape, T const* from, T* to, bool back = false) {
  std::size_t step[dovetail::shape::max_rank]{}, at[dovetail::shape::max_rank]{}, size = 1;
  for (int d = 0; d < shape.rank; ++d) {  // by the distances of a column-major tensor's elements
    step[d] = size;
    size *= static_cast<std::size_t>(shape[d]);
  }
  std::size_t column_major = 0;
  for (std::size_t row_major = 0; row_major < size; ++row_major) {
    to[back ? column_major : row_major] = from[back ? row_major : column_major];
    for (int d = shape.rank; d-- > 0;) {  // the next index, the last of its numbers first
      column_major += step[d];
      if (++at[d] < static_cast<std::size_t>(shape[d])) break;
      column_major -= at[d] * step[d];
      at[d] = 0;
    }
  }
}

/// The rank that works on each tensor: the dearest first, each to the rank that has least to do.
inline std::vector<int> owners(std::span<double const> costs, int ranks) {
  std::vector<std::size_t> order(costs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return costs[a] != costs[b] ? costs[a] > costs[b] : a < b; });
  std::vector<double> load(static_cast<std::size_t>(ranks));
  std::vector<int> owner(costs.size());
  for (auto const i : order) {
    auto const least = std::min_element(load.begin(), load.end());
    *least += costs[i];
    owner[i] = static_cast<int>(least - load.begin());
  }
  return owner;
}

/// True if a stage's solve has something to do for a tensor in this step.
template <class Stage, class T, class Step>
bool has_work(Stage const& stage, basic_parameter<T> const& p, Step const& step) {
  if (p.size() == 0) return false;
  if constexpr (requires { stage.due(step); })
    if (!stage.due(step)) return false;
  return stage.cost(p.logical_shape()) > 0;
}

/// A stage's calls of one step; stage(i) and view(i) are tensor i's, the latter its basic_tensor_update. solve(stage)
/// has the stage's work done, if it has any.
template <class Stage, class List, class View, class Solve>
void map_tensors(Stage const& stage, List const& parameters, View const& view, Solve const& solve) {
  auto const each = [&](auto const& f) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].size()) f(i);
  };
  using stage_type = std::remove_cvref_t<decltype(stage(0))>;
  using tensor = decltype(view(0));
  if constexpr (observes_with<stage_type, tensor>) each([&](std::size_t i) { stage(i).observe(view(i)); });
  if constexpr (stage_traits<stage_type>::solves) solve(stage);
  if constexpr (applies_with<stage_type, tensor>) each([&](std::size_t i) { stage(i).apply(view(i)); });
}
/// All of a stage's work in a step, here.
template <class Stage, class List, class View, class Step>
void solve_all(Stage const& stage, List const& parameters, View const& view, Step const& step) {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (has_work(stage(i), parameters[i], step)) stage(i).solve(view(i));
}

/// Has every tensor's solve done by one rank, and gives its solution to all.
template <class Stage, class View>
void divide_work(parameter_list const& parameters, step_context const& context, std::int64_t step, Stage const& stage,
                 View const& view) {
  auto const& ranks = context.preconditioning;
  if (ranks.ranks <= 1) return solve_all(stage, parameters, view, step);
  std::vector<double> costs(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (has_work(stage(i), parameters[i], step)) costs[i] = stage(i).cost(parameters[i].logical_shape());
  auto const owner = owners(costs, ranks.ranks);
  std::vector<std::size_t> first{0};
  std::vector<float> all;
  for (int r = 0; r < ranks.ranks; ++r) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (owner[i] != r || costs[i] == 0) continue;
      if (r == ranks.rank) stage(i).solve(view(i));
      auto const s = stage(i).solution(view(i));
      all.insert(all.end(), s.begin(), s.end());
    }
    first.push_back(all.size());
  }
  if (all.empty()) return;
  ranks.gather(all, first);
  auto from = all.begin();
  for (int r = 0; r < ranks.ranks; ++r)
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (owner[i] != r || costs[i] == 0) continue;
      auto const s = stage(i).solution(view(i));
      std::copy_n(from, s.size(), s.begin());
      from += static_cast<std::ptrdiff_t>(s.size());
    }
}

}  // namespace detail

}  // namespace dovetail::optim
