// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/tensor_functions.hpp>
#include <dovetail/optim/tensorwise.hpp>

// Second moments of a matrix kept as numbers per row and column: n + m of them instead of n m. Tensors of more
// dimensions are matrices of their first dimension and all the others; vectors keep a full moment. rms(x) is
// |x| / sqrt(number of elements). u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// Adafactor's direction (Shazeer & Stern, ICML 2018, algorithms 4 and 5): b = 1 - t^decay;
/// R <- b R + (1 - b) mean over columns of u^2; C <- b C + (1 - b) mean over rows; V = R C / mean(R);
/// u <- u / sqrt(V); u <- u / max(1, rms(u) / clipping); u <- max(smallest_rms, rms(w)) u. Constants where PyTorch's
/// program has them: squares are not raised by the paper's epsilon_1, means are kept above `epsilon`.
struct scale_by_adafactor {
  float decay = -0.8f;
  float epsilon = 1.1920929e-7f;
  float smallest_rms = 1e-3f;
  float clipping = 1;
  static constexpr auto describe() {
    return policy{"scale_by_adafactor", field{"decay", &scale_by_adafactor::decay, bounds{.high = 0}},
                  field{"epsilon", &scale_by_adafactor::epsilon, ranges::not_negative},
                  field{"smallest_rms", &scale_by_adafactor::smallest_rms, ranges::not_negative},
                  field{"clipping", &scale_by_adafactor::clipping, ranges::positive}};
  }
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    if (s.rank < 2) return {{"variance", s}};
    return {{"row_var", shape{s[0]}}, {"col_var", shape{s[0] ? s.size() / s[0] : 0}}};
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    std::int64_t const step = t.step;
    auto const fresh = static_cast<float>(std::pow(static_cast<double>(step), static_cast<double>(decay)));
    float const kept = 1 - fresh, floor = detail::least_epsilon(epsilon * epsilon);
    auto const& algebra = t.algebra;
    if (t.shape.rank < 2) {
      auto const v = t.array(0);
      algebra.map(v, detail::average_squares{kept, fresh}, v, t.update);
      algebra.map(t.update, divide{floor, 1}, t.update, v);
    } else {
      auto const rows = t.array(0), columns = t.array(1);
      algebra.map(columns, detail::times{kept}, columns);
      algebra.fold_columns(t.rows(), t.columns(), columns, add_square{fresh / static_cast<float>(t.rows())}, t.update,
                           rows, columns, average_row<Algebra>{t.update, rows, kept, fresh});
      algebra.each_row(t.rows(), t.columns(),
                       divide_row<Algebra>{t.update, rows, columns, algebra.sum(rows), static_cast<double>(t.rows()),
                                           static_cast<double>(detail::least_epsilon(epsilon)), floor});
    }
    algebra.scale(
        t.update,
        length{static_cast<double>(t.update.size()), static_cast<double>(smallest_rms), static_cast<double>(clipping)},
        algebra.sum_of_squares(t.update), algebra.sum_of_squares(t.weight));
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  /// u / sqrt(share v), v above the least that it is taken to be.
  struct divide {
    float floor, share;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T v) const {
      return u / simd::sqrt(simd::max(share * v, T(floor)));
    }
  };
  struct add_square {
    float fresh;
    template <class T>
    DOVETAIL_INLINE T operator()(T total, T u, T, T) const {
      return total + fresh * u * u;
    }
    /// Two totals as one.
    DOVETAIL_INLINE static float combine(float a, float b) { return a + b; }
  };
  template <class Algebra>
  struct average_row {
    typename Algebra::const_span update;
    typename Algebra::span rows;
    float kept, fresh;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      double const mean = row.sum_of_squares(row.of(update)) / static_cast<double>(row.columns);
      row.set(rows, kept * row.get(rows) + static_cast<float>(static_cast<double>(fresh) * mean));
    }
  };
  template <class Algebra>
  struct divide_row {
    typename Algebra::span update;
    typename Algebra::const_span rows, columns;
    typename Algebra::number sum;
    double count, epsilon;
    float floor;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      double const mean = std::max<double>(row.value(sum) / count, epsilon);
      auto const share = static_cast<float>(static_cast<double>(row.get(rows)) / mean);
      row.map(row.of(update), divide{floor, share}, row.of(update), row.all(columns));
    }
  };
  /// From the squares of u and w.
  struct length {
    double count, smallest_rms, clipping;
    DOVETAIL_HD double operator()(double u, double w) const {
      return std::max<double>(smallest_rms, std::sqrt(w / count)) /
             std::max<double>(1.0, std::sqrt(u / count) / clipping);
    }
  };
};

/// SM3 (Anil et al., Memory-Efficient Adaptive Optimization, NeurIPS 2019, SM3-II): v = min(R, C) + u^2; R <- max of v
/// over columns, C <- max over rows; u <- u / sqrt(v + epsilon), 0 where v is 0.
struct scale_by_sm3 {
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_sm3", field{"epsilon", &scale_by_sm3::epsilon, ranges::not_negative}};
  }
  static constexpr bool tensorwise = true;

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
  struct moment {
    float row;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T column) const {
      return simd::min(column, T(row)) + u * u;
    }
  };
  struct divide_by_moment {
    moment v;
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
    DOVETAIL_INLINE static float combine(float a, float b) { return simd::max(a, b); }
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
      moment const v{row.get(rows)};
      float const most = row.largest(v, u, row.all(columns));
      row.map(u, divide_by_moment{v, {epsilon}}, u, row.all(columns));
      row.set(rows, most);
    }
  };
};

}  // namespace dovetail::optim
