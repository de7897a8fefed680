// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/optim/directions/row_wise.hpp>
#include <dovetail/optim/matrix/lapack.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/span_math.hpp>
#include <dovetail/optim/stages.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// Whose length a preconditioned update takes on (Agarwal et al., Disentangling Adaptive Gradient Methods from Learning
/// Rates, 2020): its own, the gradient's, or that of AdaGrad's or RMSprop's update.
enum class graft { none, sgd, adagrad, rmsprop };

/// Shampoo (Gupta et al., ICML 2018, algorithm 1; blocks, intervals and grafting: Anil et al., Scalable Second Order
/// Optimization for Deep Learning, 2020): L <- b L + c u u^T, R <- b R + c u^T u with b = beta2, c = 1 - beta2, or both
/// 1 if beta2 is 1; u <- L^-1/4 u R^-1/4, in blocks of at most `block` rows and columns, whose roots are renewed every
/// `interval` steps; then the length of `grafting`. Tensors of more dimensions are matrices of the first and all
/// others; a vector takes the grafted update as it is. Each tensor's roots are worked out by one rank.
struct scale_by_shampoo {
  float beta2 = 1;
  float epsilon = 1e-6f;  ///< ridge, as a share of the largest eigenvalue
  std::int64_t interval = 10;
  std::int64_t block = 1024;
  graft grafting = graft::adagrad;
  float graft_beta2 = 0.999f;  ///< of RMSprop's update
  float graft_epsilon = 1e-10f;
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    std::vector<named_shape> list;
    if (s.rank >= 2) {
      auto const n = static_cast<std::int64_t>(layout(s).size);
      list = {{"statistics", shape{n}}, {"roots", shape{n}}};
    }
    if (has_accumulator()) list.push_back({"graft", s});
    return list;
  }
  bool due(std::int64_t t) const { return t == 1 || t % interval == 0; }
  double cost(shape const& s) const {
    if (s.rank < 2) return 0;
    double sum = 0;
    each_block(layout(s), [&](block_view const& b) { sum += std::pow(b.rows, 3) + std::pow(b.columns, 3); });
    return sum;
  }
  static std::span<float> solution(tensor_update const& t) { return t.array(1); }

  void observe(tensor_update const& t) const {
    if (t.shape.rank < 2) return;
    float const fresh = beta2 < 1 ? 1 - beta2 : 1;
    each_block(layout(t.shape), [&](block_view const& b) {
      float const* const u = t.update.data() + b.row * t.columns() + b.column;
      float* const left = t.array(0).data() + b.at;
      lapack::gram(lapack::as::it_is, b.rows, b.columns, fresh, u, t.columns(), beta2, left);
      lapack::gram(lapack::as::transposed, b.columns, b.rows, fresh, u, t.columns(), beta2, left + b.rows * b.rows);
    });
  }
  void solve(tensor_update const& t) const {
    each_block(layout(t.shape), [&](block_view const& b) {
      auto const root = [&](std::size_t at, std::size_t n) {
        lapack::power(t.array(0).subspan(at, n * n), n, -0.25, static_cast<double>(epsilon),
                      t.array(1).subspan(at, n * n));
      };
      root(b.at, b.rows);
      root(b.at + b.rows * b.rows, b.columns);
    });
  }
  void apply(tensor_update const& t) const {
    double const length = grafted(t);  // vectors are replaced by the grafted update
    if (t.shape.rank < 2) return;
    each_block(layout(t.shape), [&](block_view const& b) {
      float* const u = t.update.data() + b.row * t.columns() + b.column;
      auto const between = t.work(b.rows * b.columns);
      float const* const left = t.array(1).data() + b.at;
      using lapack::as;
      lapack::multiply(as::it_is, as::it_is, b.rows, b.columns, b.rows, 1, left, b.rows, u, t.columns(), 0,
                       between.data(), b.columns);
      lapack::multiply(as::it_is, as::it_is, b.rows, b.columns, b.columns, 1, between.data(), b.columns,
                       left + b.rows * b.rows, b.columns, 0, u, t.columns());
    });
    if (grafting == graft::none) return;
    double const own = std::sqrt(detail::sum_of_squares(t.update));
    if (own > 0) detail::scale(t.update, length / own);
  }

 private:
  struct grid {
    std::size_t rows, columns, most, size;
  };
  struct block_view {
    std::size_t row, column, rows, columns, at;  ///< `at`: where its left matrix begins, the right one behind it
  };
  bool has_accumulator() const { return grafting == graft::adagrad || grafting == graft::rmsprop; }
  grid layout(shape const& s) const {
    std::size_t const rows = tensor_update::rows_of(s);
    grid g{rows, rows ? static_cast<std::size_t>(s.size()) / rows : 0, static_cast<std::size_t>(block), 0};
    each_block(g, [&](block_view const& b) { g.size = b.at + b.rows * b.rows + b.columns * b.columns; });
    return g;
  }
  template <class F>
  static void each_block(grid const& g, F const& f) {
    std::size_t at = 0;
    for (std::size_t r = 0; r < g.rows; r += g.most)
      for (std::size_t c = 0; c < g.columns; c += g.most) {
        block_view const b{r, c, std::min(g.most, g.rows - r), std::min(g.most, g.columns - c), at};
        at += b.rows * b.rows + b.columns * b.columns;
        f(b);
      }
  }
  /// The length of the grafted update; a vector becomes that update.
  double grafted(tensor_update const& t) const {
    if (!has_accumulator()) return std::sqrt(detail::sum_of_squares(t.update));
    auto const s = t.array(t.shape.rank < 2 ? 0 : 2);
    bool const sums = grafting == graft::adagrad;
    float const kept = sums ? 1 : graft_beta2, fresh = sums ? 1 : 1 - graft_beta2, e = graft_epsilon;
    detail::map(
        s, [=](simd::pack x, simd::pack u) { return kept * x + fresh * (u * u); }, s, t.update);
    auto const out = t.shape.rank < 2 ? t.update : t.work(t.update.size());
    detail::map(
        out, [e](simd::pack u, simd::pack x) { return u / (simd::sqrt(x) + e); }, t.update, s);
    return std::sqrt(detail::sum_of_squares(out));
  }
};

/// Shampoo (Gupta et al., ICML 2018) with momentum, the gradient between the inverse fourth roots of its rows' and its
/// columns' second moments: m <- momentum m + u, w <- w - lr (m + weight_decay w). State of a matrix {n, m} in one
/// block: 2 (n^2 + m^2) + 2 n m numbers.
struct shampoo {
  schedule lr = 1e-2f;
  float momentum = 0.9f;
  float beta2 = 1;                  ///< share of the second moments that a step keeps; 1: they are sums
  float epsilon = 1e-6f;            ///< ridge, as a share of the largest eigenvalue
  std::int64_t interval = 10;       ///< steps from one renewal of the roots to the next
  std::int64_t block = 1024;        ///< the most rows and columns that are preconditioned together
  graft grafting = graft::adagrad;  ///< whose length a step has
  float weight_decay = 0;

  using rule = chain<scale_by_shampoo, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_shampoo{beta2, epsilon, interval, block, grafting}, accumulate_momentum{momentum},
            add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
