// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/step_options.hpp>

// What a tensorwise stage is: one that maps the update of a tensor as a whole, because it needs rows, columns or a
// matrix. It is an aggregate of hyperparameters that says `static constexpr bool tensorwise = true`, and has any of
//
//   std::vector<named_shape> arrays(shape const&) const     its state for a tensor of this shape, zero at first
//   void apply(tensor_update const&) const                  replaces the update
//   void observe(tensor_update const&) const                before it, on all tensors
//
// If the expensive part of it should be divided among ranks, each tensor's done by one of them, it also has
//
//   void solve(tensor_update const&) const                  between observe and apply; writes into…
//   std::span<float> solution(tensor_update const&) const   …one of its arrays, or the update, which all ranks then get
//   double cost(shape const&) const                         of solve, in any unit; 0: nothing to be done
//   bool due(std::int64_t t) const                          false: not in step t
//
// A stage that learns from layers' inputs and output gradients also has
//
//   void collect(tensor_update const&, layer_factors const&) const      adds to its pending sums; t.update is empty
//   std::span<float> pending(tensor_update const&) const                those: an array, to be added up over ranks
//
// All ranks have equal updates and state, before and after: a saved state does not depend on their number.

namespace dovetail::optim {

/// One piece of a tensor's state.
struct tensor_array {
  std::string name;
  dovetail::shape shape;
  buffer<float> values;
  friend bool operator==(tensor_array const&, tensor_array const&) = default;
};

/// A tensor, as a tensorwise stage sees it.
struct tensor_update {
  std::string const& name;
  dovetail::shape const& shape;
  std::int64_t step = 1;  ///< from 1
  int threads = 1;
  std::span<float const> weight;
  std::span<float> update;  ///< what the stages before this one made of the gradient
  std::span<tensor_array> arrays;
  std::vector<float>& memory;
  std::string const* next_name = nullptr;  ///< the tensor behind this one, for a stage with `solve`, or null
  std::span<float> next_update{};          ///< its update

  /// The tensor as a matrix: its first dimension, and all the others; a vector is one row.
  std::size_t rows() const { return rows_of(shape); }
  std::size_t columns() const { return rows() ? static_cast<std::size_t>(shape.size()) / rows() : 0; }
  static std::size_t rows_of(dovetail::shape const& s) { return s.rank < 2 ? 1 : static_cast<std::size_t>(s[0]); }
  /// A row of the update (weights).
  std::span<float> row(std::size_t r) const { return update.subspan(r * columns(), columns()); }
  std::span<float const> weight_row(std::size_t r) const { return weight.subspan(r * columns(), columns()); }
  /// Piece i of the stage's state.
  std::span<float> array(std::size_t i) const { return arrays[i].values.span(); }
  /// Room for n floats until the next call; kept from step to step.
  std::span<float> work(std::size_t n) const {
    if (memory.size() < n) memory.resize(n);
    return {memory.data(), n};
  }
};

namespace detail {

/// A stage that learns from layers.
template <class S>
inline constexpr bool collects = requires {
  &S::collect;
};

/// The cursor of a pass's first load.
template <class Source, bool Stored>
struct cursor_type {
  using type = decltype(std::declval<Source const&>().at(std::declval<parameter_list const&>(), 0));
};
template <class Source>
struct cursor_type<Source, true> {
  using type = gradient::dense::cursor;
};
template <class Source, bool Stored>
using cursor_of = typename cursor_type<Source, Stored>::type;

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

/// Has every tensor's solve done by one rank, and gives its solution to all.
template <class Stage, class View>
void divide_work(parameter_list const& parameters, step_options const& options, std::int64_t step, Stage const& stage,
                 View const& view) {
  auto const has_work = [&](std::size_t i) {
    if (parameters[i].size() == 0) return false;
    if constexpr (requires { stage(i).due(step); })
      if (!stage(i).due(step)) return false;
    return stage(i).cost(parameters[i].shape) > 0;
  };
  auto const& ranks = options.division;
  if (ranks.ranks <= 1) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (has_work(i)) stage(i).solve(view(i));
    return;
  }
  std::vector<double> costs(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (has_work(i)) costs[i] = stage(i).cost(parameters[i].shape);
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
