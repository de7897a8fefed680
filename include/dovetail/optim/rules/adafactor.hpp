// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules/sm3.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/tensorwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The second moment of a matrix is kept as numbers per
// row and column: n + m of them instead of n m. Tensors of more dimensions are matrices of their first dimension and
// all the others; vectors keep a full moment. rms(x) is |x| / sqrt(number of elements).

namespace dovetail::optim {

/// Adafactor's direction (Shazeer & Stern, ICML 2018, algorithms 4 and 5): b = 1 - t^decay;
/// R <- b R + (1 - b) mean over columns of u^2; C <- b C + (1 - b) mean over rows; V = R C / mean(R);
/// u <- u / sqrt(V); u <- u / max(1, rms(u) / clipping); u <- max(smallest_rms, rms(w)) u. Constants where PyTorch's
/// program has them: squares are not raised by the paper's epsilon_1, means are kept above `epsilon`.
struct scale_by_adafactor {
  using kind = tensorwise;
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
      algebra.map(t.update, divide<typename Algebra::real>{floor, 1}, t.update, v);
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
  template <class Real>
  struct divide {
    float floor;
    Real share;
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
    template <class T>
    DOVETAIL_INLINE static T combine(T a, T b) {
      return a + b;
    }
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
      row.set(rows, kept * row.get(rows) + static_cast<typename Algebra::real>(static_cast<double>(fresh) * mean));
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
      auto const share = static_cast<typename Algebra::real>(static_cast<double>(row.get(rows)) / mean);
      row.map(row.of(update), divide<typename Algebra::real>{floor, share}, row.of(update), row.all(columns));
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

/// min(largest, 1 / sqrt(t)), t the step from 1: Adafactor's rate (Shazeer & Stern, ICML 2018, section 8).
struct relative_step {
  float largest = 1e-2f;  ///< rate of the first 1 / largest^2 steps
  static constexpr auto describe() {
    return policy{"relative_step", field{"largest", &relative_step::largest, ranges::positive}};
  }
  float operator()(std::int64_t step) const {
    return std::min(largest, static_cast<float>(1 / std::sqrt(static_cast<double>(step + 1))));
  }
};

/// Adafactor (Shazeer & Stern, ICML 2018) as in PyTorch: steps relative to the size of each tensor. Weight decay is
/// decoupled and follows the same rate. State: n + m numbers for a matrix {n, m}.
struct adafactor {
  schedule lr = relative_step{};  ///< in units of each tensor's own size
  float decay = -0.8f;            ///< the averages keep 1 - t^decay in step t
  float epsilon = 1.1920929e-7f;  ///< the least mean of squares
  float smallest_rms = 1e-3f;     ///< the least size that a tensor is taken to have
  float clipping = 1;             ///< the largest rms of an update, before the tensor's size
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adafactor",
                  field{"lr", &adafactor::lr},
                  field{"decay", &adafactor::decay, bounds{.high = 0}},
                  field{"epsilon", &adafactor::epsilon, ranges::not_negative},
                  field{"smallest_rms", &adafactor::smallest_rms, ranges::not_negative},
                  field{"clipping", &adafactor::clipping, ranges::positive},
                  field{"weight_decay", &adafactor::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adafactor, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_adafactor{decay, epsilon, smallest_rms, clipping}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
