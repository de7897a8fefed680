// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/linalg/algebra.hpp>
#include <dovetail/optim/stage.hpp>

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
  using real = typename Algebra::real;  ///< the type of its numbers
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
  /// Room for n numbers until the next call; kept from step to step.
  span work(std::size_t n) const { return algebra.work(n); }
};

}  // namespace dovetail::optim
