// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/tensorwise.hpp>

// u is the update that arrives, w the weight, t the step from 1.

namespace dovetail::optim {

/// AdaGrad with one number per row (Mudigere et al., Software-Hardware Co-design for Fast and Scalable Training of Deep
/// Learning Recommendation Models, ISCA 2022, section 4.1.4): s <- s + mean(u^2); u <- u / (sqrt(s) + epsilon).
struct scale_by_row_wise_adagrad {
  using kind = tensorwise;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_row_wise_adagrad",
                  field{"epsilon", &scale_by_row_wise_adagrad::epsilon, ranges::not_negative}};
  }

  std::vector<named_shape> arrays(shape const& s) const {
    return {{"sum", shape{static_cast<std::int64_t>(tensor_update::rows_of(s))}}};
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    t.algebra.each_row(t.rows(), t.columns(), accumulate<Algebra>{t.update, t.array(0), static_cast<double>(epsilon)});
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  template <class Algebra>
  struct accumulate {
    typename Algebra::span update, sums;
    double epsilon;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      auto const u = row.of(update);
      using real = typename Algebra::real;
      real const s = row.get(sums) + static_cast<real>(row.sum_of_squares(u) / static_cast<double>(row.columns));
      row.set(sums, s);
      if (s > 0) row.scale(u, 1 / (std::sqrt(static_cast<double>(s)) + epsilon));
    }
  };
};

/// Row-wise AdaGrad (Mudigere et al., ISCA 2022), for embedding tables: one number per row. Weight decay is coupled.
struct row_wise_adagrad {
  schedule lr = 1e-2f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"row_wise_adagrad", field{"lr", &row_wise_adagrad::lr},
                  field{"epsilon", &row_wise_adagrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &row_wise_adagrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_row_wise_adagrad, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_row_wise_adagrad{epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
