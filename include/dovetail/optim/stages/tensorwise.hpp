// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/linalg/algebra.hpp>
#include <dovetail/optim/step_options.hpp>

// What a tensorwise stage is: one that maps the update of a tensor as a whole, because it needs rows, columns or a
// matrix. It is an aggregate of hyperparameters that says `using kind = optim::tensorwise`, and has any of
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
//   void collect(tensor_update const&, kfac_statistics const&) const      adds to its pending sums; t.update is empty
//   std::span<float> unreduced_statistics(tensor_update const&) const                those: an array, to be added up
//   over ranks
//
// All ranks have equal updates and state, before and after: a saved state does not depend on their number.
//
// A stage written for tensor_update works on spans of the host's memory as it likes. One that should run on a device as
// well takes `template <class Algebra> … basic_tensor_update<Algebra> const&` and leaves all work on numbers to
// t.algebra (optim/linalg/algebra.hpp); the library's own stages do.

namespace dovetail::optim {

/// A tensor, as a tensorwise stage sees it.
template <class Algebra>
struct basic_tensor_update {
  using span = typename Algebra::span;
  using const_span = typename Algebra::const_span;

  std::string const& name;
  dovetail::shape shape;               ///< as it was registered
  typename Algebra::step_number step;  ///< from 1
  int threads = 1;
  const_span weight;
  span update;  ///< what the stages before this one made of the gradient
  std::span<typename Algebra::array> arrays;
  Algebra algebra;
  std::string const* next_name = nullptr;  ///< the tensor behind this one, for a stage with `solve`, or null
  span next_update{};                      ///< its update

  /// The tensor as a matrix: its first dimension, and all the others; a vector is one row.
  std::size_t rows() const { return rows_of(shape); }
  std::size_t columns() const { return rows() ? static_cast<std::size_t>(shape.size()) / rows() : 0; }
  static std::size_t rows_of(dovetail::shape const& s) { return s.rank < 2 ? 1 : static_cast<std::size_t>(s[0]); }
  /// A row of the update (weights).
  span row(std::size_t r) const { return update.subspan(r * columns(), columns()); }
  const_span weight_row(std::size_t r) const { return weight.subspan(r * columns(), columns()); }
  /// Piece i of the stage's state.
  span array(std::size_t i) const { return span(arrays[i].values.span()); }
  /// Room for n floats until the next call; kept from step to step.
  span work(std::size_t n) const { return algebra.work(n); }
};

namespace detail {

/// Throws argument_error unless the tensor that begins where the layer says (null: none does) is its weight {out, in}:
/// what a rule keeps of a layer is sized by that, and what is read of `f` by both.
DOVETAIL_COLD inline void check_layer(kfac_statistics const& f, shape const* weight, char const* whose) {
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
inline constexpr bool collects_with = requires(S const& s, Tensor const& t, kfac_statistics const& f) {
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
DOVETAIL_COLD inline void turn(dovetail::shape const& shape, float const* from, float* to, bool back = false) {
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

/// True if a stage's solve has something to do for a tensor in this step.
template <class Stage, class Step>
bool has_work(Stage const& stage, parameter const& p, Step const& step) {
  if (p.size() == 0) return false;
  if constexpr (requires { stage.due(step); })
    if (!stage.due(step)) return false;
  return stage.cost(p.logical_shape()) > 0;
}

/// A stage's calls of one step, all of its work done here; stage(i) and view(i) are tensor i's, the latter its
/// basic_tensor_update.
template <class Stage, class View>
void map_tensors(Stage const& stage, parameter_list const& parameters, View const& view) {
  auto const each = [&](auto const& f) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].size()) f(i);
  };
  using stage_type = std::remove_cvref_t<decltype(stage(0))>;
  using tensor = decltype(view(0));
  if constexpr (observes_with<stage_type, tensor>) each([&](std::size_t i) { stage(i).observe(view(i)); });
  if constexpr (stage_traits<stage_type>::solves)
    each([&](std::size_t i) {
      auto const t = view(i);
      if (has_work(stage(i), parameters[i], t.step)) stage(i).solve(t);
    });
  if constexpr (applies_with<stage_type, tensor>) each([&](std::size_t i) { stage(i).apply(view(i)); });
}

/// Has every tensor's solve done by one rank, and gives its solution to all.
template <class Stage, class View>
void divide_work(parameter_list const& parameters, step_options const& options, std::int64_t step, Stage const& stage,
                 View const& view) {
  auto const& ranks = options.preconditioning;
  if (ranks.ranks <= 1) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (has_work(stage(i), parameters[i], step)) stage(i).solve(view(i));
    return;
  }
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
