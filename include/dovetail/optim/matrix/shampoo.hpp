// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/matrix/algebra.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// Whose length a preconditioned update takes on (Agarwal et al., Disentangling Adaptive Gradient Methods from Learning
/// Rates, 2020): its own, the gradient's, or that of AdaGrad's or RMSprop's update.
enum class graft { none, sgd, adagrad, rmsprop };
namespace detail {
inline constexpr char graft_names[] = "none sgd adagrad rmsprop";
}

/// Shampoo (Gupta et al., ICML 2018, algorithm 1; blocks, intervals and grafting: Anil et al., Scalable Second Order
/// Optimization for Deep Learning, 2020): L <- b L + c u u^T, R <- b R + c u^T u with b = beta2, c = 1 - beta2, or both
/// 1 if beta2 is 1; u <- L^-1/4 u R^-1/4, in blocks of at most `block` rows and columns, whose roots are renewed every
/// `interval` steps; then the length of `grafting`. Tensors of more dimensions are matrices of the first and all
/// others; a vector takes the grafted update as it is. Each tensor's roots are worked out by one rank.
struct scale_by_shampoo {
  using kind = tensorwise;
  float beta2 = 1;
  float epsilon = 1e-6f;  ///< ridge, as a share of the largest eigenvalue
  std::int64_t interval = 10;
  std::int64_t block = 1024;
  graft grafting = graft::adagrad;
  float graft_beta2 = 0.999f;  ///< of RMSprop's update
  float graft_epsilon = 1e-10f;
  static constexpr auto describe() {
    return policy{"scale_by_shampoo",
                  field{"beta2", &scale_by_shampoo::beta2, ranges::unit},
                  field{"epsilon", &scale_by_shampoo::epsilon, ranges::not_negative},
                  field{"interval", &scale_by_shampoo::interval, ranges::count},
                  field{"block", &scale_by_shampoo::block, ranges::count},
                  field{"grafting", &scale_by_shampoo::grafting, detail::graft_names},
                  field{"graft_beta2", &scale_by_shampoo::graft_beta2, ranges::share},
                  field{"graft_epsilon", &scale_by_shampoo::graft_epsilon, ranges::not_negative}};
  }
  /// An eigenvalue of 0 has no inverse root; below this share, a float's statistics tell nothing of one.
  static constexpr double smallest_ridge = 0x1p-48;

  std::vector<named_shape> arrays(shape const& s) const {
    std::vector<named_shape> list;
    if (s.rank >= 2) {
      auto const g = layout(s);
      auto const n = static_cast<std::int64_t>(g.size);
      // Blocks of another size may take as many numbers: the name tells them apart.
      auto const blocks = g.most < std::max(g.rows, g.columns) ? message("_in_blocks_of_", g.most) : std::string();
      list = {{"statistics" + blocks, shape{n}}, {"roots" + blocks, shape{n}}};
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
  template <class Algebra>
  static auto solution(basic_tensor_update<Algebra> const& t) {
    return t.array(1);
  }

  template <class Algebra>
  void observe(basic_tensor_update<Algebra> const& t) const {
    if (t.shape.rank < 2) return;
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    float const fresh = beta2 < 1 ? 1 - beta2 : 1;
    each_block(layout(t.shape), [&](block_view const& b) {
      auto const u = t.update.subspan(b.row * t.columns() + b.column);
      auto const left = t.array(0).subspan(b.at), right = left.subspan(b.rows * b.rows);
      matrix.gram(as::it_is, b.rows, b.columns, fresh, u, t.columns(), beta2, left);
      matrix.gram(as::transposed, b.columns, b.rows, fresh, u, t.columns(), beta2, right);
    });
  }
  template <class Algebra>
  void solve(basic_tensor_update<Algebra> const& t) const {
    auto&& matrix = matrices_of(t.algebra);
    auto const root = [&](std::size_t at, std::size_t n) {
      matrix.power(t.array(0).subspan(at, n * n), n, -0.25, std::max(static_cast<double>(epsilon), smallest_ridge),
                   t.array(1).subspan(at, n * n));
    };
    each_block(layout(t.shape), [&](block_view const& b) {
      root(b.at, b.rows);
      root(b.at + b.rows * b.rows, b.columns);
    });
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    auto const& algebra = t.algebra;
    if (t.shape.rank < 2) {
      if (has_accumulator()) grafted(t, t.array(0), t.update);
      return;
    }
    typename Algebra::number length{};
    if (has_accumulator()) {
      auto const out = t.work(t.update.size());
      grafted(t, t.array(2), out);
      length = algebra.sum_of_squares(out);
    } else if (grafting == graft::sgd) {
      length = algebra.sum_of_squares(t.update);
    }
    using lapack::as;
    auto&& matrix = matrices_of(algebra);
    each_block(layout(t.shape), [&](block_view const& b) {
      auto const u = t.update.subspan(b.row * t.columns() + b.column);
      auto const between = t.work(b.rows * b.columns);
      auto const left = t.array(1).subspan(b.at), right = left.subspan(b.rows * b.rows);
      matrix.multiply(as::it_is, as::it_is, b.rows, b.columns, b.rows, 1, left, b.rows, u, t.columns(), 0, between,
                      b.columns);
      matrix.multiply(as::it_is, as::it_is, b.rows, b.columns, b.columns, 1, between, b.columns, right, b.columns, 0, u,
                      t.columns());
    });
    if (grafting != graft::none) algebra.scale(t.update, ratio_of_norms{}, length, algebra.sum_of_squares(t.update));
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  struct divide {
    float epsilon;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T moment) const {
      return u / (simd::sqrt(moment) + epsilon);
    }
  };
  /// From squares; 1 for an update of zeros.
  struct ratio_of_norms {
    DOVETAIL_HD double operator()(double wanted, double own) const {
      return own > 0 ? std::sqrt(wanted) / std::sqrt(own) : 1;
    }
  };

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
  /// The update whose length is taken on; changes its second moments.
  template <class Algebra>
  void grafted(basic_tensor_update<Algebra> const& t, typename Algebra::span moments,
               typename Algebra::span out) const {
    bool const sums = grafting == graft::adagrad;
    float const kept = sums ? 1 : graft_beta2, fresh = sums ? 1 : 1 - graft_beta2;
    t.algebra.map(moments, detail::average_squares{kept, fresh}, moments, t.update);
    t.algebra.map(out, divide{detail::root_epsilon(graft_epsilon)}, t.update, moments);
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
  static constexpr auto describe() {
    return policy{"shampoo",
                  field{"lr", &shampoo::lr},
                  field{"momentum", &shampoo::momentum, ranges::share},
                  field{"beta2", &shampoo::beta2, ranges::unit},
                  field{"epsilon", &shampoo::epsilon, ranges::not_negative},
                  field{"interval", &shampoo::interval, ranges::count},
                  field{"block", &shampoo::block, ranges::count},
                  field{"grafting", &shampoo::grafting, detail::graft_names},
                  field{"weight_decay", &shampoo::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_shampoo, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_shampoo{beta2, epsilon, interval, block, grafting}, accumulate_momentum{momentum},
            add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
