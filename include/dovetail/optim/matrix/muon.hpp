// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/matrix/algebra.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rules/qhm.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// u <- sqrt(max(1, rows / columns)) U V^T for u = U S V^T, nearly: `iterations` of X <- a X + b X X^T X + c (X X^T)^2
/// X from X = u / (|u| + epsilon), whose coefficients bring all singular values near 1 quickly instead of exactly
/// (Jordan et al., Muon, 2024). Tensors of more dimensions are matrices of the first and all others; of a vector it is
/// u / |u|. Each tensor's work is done by one rank.
struct orthogonalize {
  using kind = tensorwise;
  int iterations = 5;
  float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  float epsilon = 1e-7f;
  static constexpr auto describe() {
    return policy{"orthogonalize",
                  field{"iterations", &orthogonalize::iterations, ranges::count},
                  field{"a", &orthogonalize::a, ranges::finite},
                  field{"b", &orthogonalize::b, ranges::finite},
                  field{"c", &orthogonalize::c, ranges::finite},
                  field{"epsilon", &orthogonalize::epsilon, ranges::not_negative}};
  }

  static double cost(shape const& s) {
    double const rows = static_cast<double>(tensor_update::rows_of(s));
    double const columns = rows > 0 ? static_cast<double>(s.size()) / rows : 0;
    return rows * columns * std::min(rows, columns);
  }
  template <class Algebra>
  static auto solution(basic_tensor_update<Algebra> const& t) {
    return t.update;
  }
  template <class Algebra>
  void solve(basic_tensor_update<Algebra> const& t) const {
    using lapack::as;
    auto const& algebra = t.algebra;
    auto&& matrix = matrices_of(algebra);
    std::size_t const m = t.rows(), n = t.columns(), k = std::min(m, n);
    auto const x = t.update;
    algebra.scale(x, over_norm{static_cast<double>(detail::least_epsilon(epsilon))}, algebra.sum_of_squares(x));
    auto const work = t.work(2 * k * k + m * n);
    auto const g = work.first(k * k), h = work.subspan(k * k, k * k), y = work.subspan(2 * k * k, m * n);
    for (int i = 0; i < iterations; ++i) {
      bool const wide = m <= n;
      matrix.gram(wide ? as::it_is : as::transposed, k, wide ? n : m, 1, x, n, 0, g);  // X X^T, or X^T X
      algebra.copy(g, h);
      matrix.multiply(as::it_is, as::it_is, k, k, k, c, g, k, g, k, b, h, k);  // b G + c G^2
      algebra.copy(x, y);
      if (wide)
        matrix.multiply(as::it_is, as::it_is, m, n, k, 1, h, k, x, n, a, y, n);
      else
        matrix.multiply(as::it_is, as::it_is, m, n, k, 1, x, n, h, k, a, y, n);
      algebra.copy(y, x);
    }
    auto const length = static_cast<float>(std::sqrt(std::max(1.0, static_cast<double>(m) / static_cast<double>(n))));
    algebra.map(x, detail::times{length}, x);
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  struct over_norm {
    double epsilon;
    DOVETAIL_HD double operator()(double squares) const { return 1 / (std::sqrt(squares) + epsilon); }
  };
};

/// Muon (Jordan et al., 2024), momentum whose matrices are made orthogonal: b <- momentum b + (1 - momentum) u,
/// w <- w - lr (O + weight_decay w), O the orthogonalized (1 - momentum) u + momentum b. For the matrices of hidden
/// layers; give embeddings, the last layer and vectors to AdamW with optim::partition. State: 4 bytes per weight.
struct muon {
  schedule lr = 0.02f;
  float momentum = 0.95f;
  bool nesterov = true;  ///< false: b itself is orthogonalized
  int iterations = 5;    ///< of the orthogonalization; more come nearer to it
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"muon",
                  field{"lr", &muon::lr},
                  field{"momentum", &muon::momentum, ranges::share},
                  field{"nesterov", &muon::nesterov},
                  field{"iterations", &muon::iterations, ranges::count},
                  field{"weight_decay", &muon::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_qhm, orthogonalize, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_qhm{nesterov ? momentum : 1, momentum}, orthogonalize{.iterations = iterations},
            add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
