// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/tensorwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The second moment of a matrix is kept as numbers per
// row and column: n + m of them instead of n m. Tensors of more dimensions are matrices of their first dimension and
// all the others; vectors keep a full moment.

namespace dovetail::optim {

/// SM3 (Anil et al., Memory-Efficient Adaptive Optimization, NeurIPS 2019, SM3-II): v = min(R, C) + u^2; R <- max of v
/// over columns, C <- max over rows; u <- u / sqrt(v + epsilon), 0 where v is 0.
struct scale_by_sm3 {
  using kind = tensorwise;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_sm3", field{"epsilon", &scale_by_sm3::epsilon, ranges::not_negative}};
  }

  std::vector<named_shape> arrays(shape const& s) const {
    if (s.rank < 2) return {{"accumulator", s}};
    return {{"row_accumulator", shape{s[0]}}, {"col_accumulator", shape{s[0] ? s.size() / s[0] : 0}}};
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    auto const& algebra = t.algebra;
    if (t.shape.rank < 2) {
      auto const v = t.array(0);
      algebra.map(v, detail::average_squares{1, 1}, v, t.update);
      algebra.map(t.update, divide{epsilon}, t.update, v);
      return;
    }
    auto const rows = t.array(0), columns = t.array(1);
    auto const most = t.work(t.columns());
    algebra.fill(most, 0);
    algebra.fold_columns(t.rows(), t.columns(), most, larger{}, t.update, rows, columns,
                         divide_row<Algebra>{t.update, rows, columns, epsilon});
    algebra.copy(most, columns);
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  struct divide {
    float epsilon;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T v) const {
      return simd::select(v > T(0.0f), u / simd::sqrt(v + epsilon), T(0.0f));
    }
  };
  /// v of an element.
  template <class Real>
  struct moment {
    Real row;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T column) const {
      return simd::min(column, T(row)) + u * u;
    }
  };
  template <class Real>
  struct divide_by_moment {
    moment<Real> v;
    divide by;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T column) const {
      return by(u, v(u, column));
    }
  };
  struct larger {
    template <class T>
    DOVETAIL_INLINE T operator()(T most, T u, T row, T column) const {
      return simd::max(most, simd::min(column, row) + u * u);
    }
    template <class T>
    DOVETAIL_INLINE static T combine(T a, T b) {
      return simd::max(a, b);
    }
  };
  template <class Algebra>
  struct divide_row {
    typename Algebra::span update, rows;
    typename Algebra::const_span columns;
    float epsilon;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      auto const u = row.of(update);
      using real = typename Algebra::real;
      moment<real> const v{row.get(rows)};
      real const most = row.largest(v, u, row.all(columns));
      row.map(u, divide_by_moment<real>{v, {epsilon}}, u, row.all(columns));
      row.set(rows, most);
    }
  };
};

/// SM3 (Anil et al., NeurIPS 2019), AdaGrad with one number per row and column, and momentum: m <- b m + (1 - b) u,
/// w <- w - lr (m + weight_decay w) with b = momentum. State: the momentum, and n + m numbers for a matrix
/// {n, m}. Wants a warm-up.
struct sm3 {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float epsilon = 1e-8f;  ///< added under the root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"sm3", field{"lr", &sm3::lr}, field{"momentum", &sm3::momentum, ranges::share},
                  field{"epsilon", &sm3::epsilon, ranges::not_negative},
                  field{"weight_decay", &sm3::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sm3, accumulate_average, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_sm3{epsilon}, accumulate_average{momentum}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
