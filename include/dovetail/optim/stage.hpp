// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>

#include <dovetail/core/config.hpp>

// What a stage is. A stage is an aggregate of hyperparameters that states its kind,
//
//   using kind = optim::elementwise;             or optim::reducing, optim::tensorwise
//
// and is checked against it: a member of a name that stands here and cannot be called as it stands here does not
// compile, and the first line of the error says which (optim/engine/stage_traits.hpp).
//
// `kernel prepare(std::int64_t t) const` (steps t count from 1) returns the kernel of a step, which holds all constants
// that do not depend on the element. A stage with a learning rate has
//
//   float learning_rate(std::int64_t t) const                  the rate of step t, for step_result and its check
//   kernel prepare(std::int64_t t, float rate) const           gets it, on a device as well
//
// A kernel is a literal type with a default value. Its functions are templates over the number type T
// (core/simd.hpp). That of an *elementwise* stage has up to two,
//
//   T emit(T w, T u, T slots…) const             pure: the update this stage passes on; may be evaluated again
//   void advance([T w,] T u, T& slots…) const    changes the slots, once a step; comes before emit
//
// or, when the update depends on what the slots held before this step, both in one, which cannot be evaluated again
// behind a reduction:
//
//   T step(T w, T u, T& slots…) const            changes the slots and returns the update
//
// where w is the weight, u the update that the previous stage passed on (the gradient, for the first), and slots are
// the stage's own arrays, of the parameters' size and zero at first, named by `static constexpr std::array slots{…}`.
//
// A stage that says `static constexpr bool reads_gradient = true` compares the update with the gradient that the chain
// began with: all these functions, and `measure` below, get it behind u,
//
//   T emit(T w, T u, T g, T slots…) const
//
// A *reducing* stage needs sums first. It says `static constexpr reduction needs{…}`. Its kernel has `factor(norms)`,
// evaluated once per tensor or once for all, and `T emit(T w, T u, T slots…, T factors…) const`; a kernel with neither
// passes the update through. factor returns a float, or a std::array of several. The stage may have slots, which
// advance before it measures; a kernel may measure other sums than the norms, and remember numbers from step to step:
//
//   std::array<product<T>, K> measure(T w, T u, T slots…) const    the terms of K sums; factor gets the sums instead
//   static constexpr std::array scalars{…}       their names; factor's further arguments, `double&`, zero at first, one
//                                                per tensor or one for all, as `needs` says
//   void begin(double scalars…)                  of a stage with sums over all tensors: tells the kernel what they are.
//                                                With parameter groups they are updated with the first group's
//                                                hyperparameters only
//
// A *tensorwise* stage maps the update of one tensor as a whole: optim/tensorwise.hpp.
//
// Any kernel may have
//   void evaluated(double loss)                  tells it this step's loss, which step_context then must give
//
// A stage may also say
//   float initial_value(std::size_t i) const     what slot i of its own holds at first, instead of zero
//   double initial_scalar(std::size_t i) const   the same of a scalar
//   void check() const                           throws argument_error for hyperparameters that it cannot work with
//   static constexpr bool ends_chain = true      nothing can come after it
//   static constexpr bool after_learning_rate = true   it comes behind such a stage: its update is the change that the
//                                                weights are about to take. It may observe the new weights w + u
//                                                (averages) or replace the change (lookahead)
//   static constexpr bool precedes_state = true  nothing with slots can come before it: it decides whether to skip
//   static constexpr bool slots_hold_weights = true   its slots store earlier weights. It uses w - slot, so rounding
//                                                the slot would destroy the update: optim::low_precision_state keeps
//                                                them in fp32
//   static constexpr bool exact_slots = true     it magnifies what rounding does to its slots (it divides by a
//                                                difference of them, or finds its rate from them): the same
//   static constexpr std::size_t curvature_slot  a slot that holds an average of the Hessian's diagonal: no function of
//                                                the kernel writes it, but an observation of hessian_diagonal, by
//   T observed(T slot, T estimate) const                  what the slot then holds; DOVETAIL_HD, to run on a device
//                                                too. optim/curvature.hpp averages estimates before, if the
//                                                stage has a member `spatial average`

namespace dovetail::optim {

/// Kinds of stages.
struct elementwise {};
struct reducing {};
struct tensorwise {};

/// What a reducing stage must know before it can emit.
struct reduction {
  bool per_tensor = false;   ///< sums over each tensor; otherwise over all parameters together
  bool weight_norm = false;  ///< also the weights' norm
};

/// L2 norms of the update that reaches a reducing stage, and of the weights if it asked for them.
struct norms {
  double update = 0;
  double weight = 0;
};

namespace detail {
/// A factor of a reducing stage: the largest float in place of what is larger, so that vanishing updates become large
/// ones, but not infinite.
DOVETAIL_HD constexpr float factor_from(double x) {
  constexpr float largest = 3.40282347e38f;
  return x > static_cast<double>(largest) ? largest : static_cast<float>(x);
}

/// What is added to a root of squares, or compared with it, in a denominator: an epsilon of 0 must not make 0 / 0 of a
/// gradient of exactly 0. 2^-75 is the root of what is too small for a float: beside a root that is not 0 it is
/// nothing.
DOVETAIL_HD constexpr float root_epsilon(float epsilon) { return epsilon > 0x1p-75f ? epsilon : 0x1p-75f; }
/// The same beside what is no root: the smallest normal float.
DOVETAIL_HD constexpr float least_epsilon(float epsilon) { return epsilon > 0x1p-126f ? epsilon : 0x1p-126f; }
}  // namespace detail

/// A term a b of a sum, which runs in double precision over elements.
template <class T>
struct product {
  T a, b;
};
template <class T>
DOVETAIL_INLINE constexpr product<T> square(T x) {
  return {x, x};
}

}  // namespace dovetail::optim
