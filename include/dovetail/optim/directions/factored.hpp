// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/simd.hpp>
#include <dovetail/optim/directions/row_wise.hpp>
#include <dovetail/optim/span_math.hpp>
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
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    if (s.rank < 2) return {{"variance", s}};
    return {{"row_var", shape{s[0]}}, {"col_var", shape{s[0] ? s.size() / s[0] : 0}}};
  }
  void apply(tensor_update const& t) const {
    auto const fresh = static_cast<float>(std::pow(static_cast<double>(t.step), static_cast<double>(decay)));
    float const kept = 1 - fresh, floor = epsilon * epsilon;
    auto const divide = [floor](simd::pack u, simd::pack v) { return u / simd::sqrt(simd::max(v, floor)); };
    if (t.shape.rank < 2) {
      auto const v = t.array(0);
      detail::map(
          v, [=](simd::pack x, simd::pack u) { return kept * x + fresh * (u * u); }, v, t.update);
      detail::map(t.update, divide, t.update, v);
    } else {
      auto const rows = t.array(0), columns = t.array(1);
      float const per_row = fresh / static_cast<float>(t.rows());
      detail::map(
          columns, [=](simd::pack x) { return kept * x; }, columns);
      for (std::size_t r = 0; r < t.rows(); ++r) {
        auto const u = t.row(r);
        double const mean = detail::sum_of_squares(u) / static_cast<double>(t.columns());
        rows[r] = kept * rows[r] + fresh * static_cast<float>(mean);
        detail::map(
            columns, [=](simd::pack x, simd::pack y) { return x + per_row * (y * y); }, columns, u);
      }
      double const mean = std::max(detail::sum(rows) / static_cast<double>(t.rows()), static_cast<double>(epsilon));
      detail::each_row(t, [&](std::size_t r) {
        auto const share = static_cast<float>(rows[r] / mean);
        detail::map(
            t.row(r), [=](simd::pack u, simd::pack c) { return divide(u, share * c); }, t.row(r), columns);
      });
    }
    double const n = static_cast<double>(t.update.size());
    double const rms = std::sqrt(detail::sum_of_squares(t.update) / n);
    double const weight_rms = std::sqrt(detail::sum_of_squares(t.weight) / n);
    detail::scale(t.update, std::max(static_cast<double>(smallest_rms), weight_rms) / std::max(1.0, rms / clipping));
  }
};

/// SM3 (Anil et al., Memory-Efficient Adaptive Optimization, NeurIPS 2019, SM3-II): v = min(R, C) + u^2; R <- max of v
/// over columns, C <- max over rows; u <- u / sqrt(v + epsilon), 0 where v is 0.
struct scale_by_sm3 {
  float epsilon = 1e-8f;
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    if (s.rank < 2) return {{"accumulator", s}};
    return {{"row_accumulator", shape{s[0]}}, {"col_accumulator", shape{s[0] ? s.size() / s[0] : 0}}};
  }
  void apply(tensor_update const& t) const {
    auto const divide = [e = epsilon](simd::pack u, simd::pack v) {
      return simd::select(v > 0.0f, u / simd::sqrt(v + e), 0.0f);
    };
    if (t.shape.rank < 2) {
      auto const v = t.array(0);
      detail::map(
          v, [](simd::pack x, simd::pack u) { return x + u * u; }, v, t.update);
      detail::map(t.update, divide, t.update, v);
      return;
    }
    auto const rows = t.array(0), columns = t.array(1);
    auto const work = t.work(2 * t.columns());
    auto const v = work.first(t.columns()), most = work.subspan(t.columns());
    std::fill(most.begin(), most.end(), 0.0f);
    for (std::size_t r = 0; r < t.rows(); ++r) {
      auto const u = t.row(r);
      float const row = rows[r];
      detail::map(
          v, [row](simd::pack c, simd::pack x) { return simd::min(c, row) + x * x; }, columns, u);
      detail::map(u, divide, u, v);
      detail::map(
          most, [](simd::pack a, simd::pack b) { return simd::max(a, b); }, most, v);
      rows[r] = detail::largest(v);
    }
    std::copy(most.begin(), most.end(), columns.begin());
  }
};

}  // namespace dovetail::optim
