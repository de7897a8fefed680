// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/matrix/algebra.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/moments.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// SOAP (Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025, algorithm 3): Adam in the
/// eigenbases P of L and Q of R. m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) (P^T u Q)^2;
/// u <- P (P^T m^ Q / (sqrt(v^) + epsilon)) Q^T; then L <- b3 L + (1 - b3) u u^T, R <- b3 R + (1 - b3) u^T u with the u
/// that came, and every `interval` steps one step of orthogonal iteration, P <- QR(L P). The first step only begins the
/// bases. A dimension above `largest` keeps the identity as its basis; of a vector it is Adam. With beta1 = 0 it is the
/// eigenvalue-corrected Shampoo. Each tensor's bases are worked out by one rank.
struct scale_by_soap {
  using kind = tensorwise;
  float beta1 = 0.95f, beta2 = 0.95f;
  float shampoo_beta = -1;  ///< b3; negative: beta2
  float epsilon = 1e-8f;
  std::int64_t interval = 10;
  std::int64_t largest = 10000;
  static constexpr auto describe() {
    return policy{"scale_by_soap",
                  field{"beta1", &scale_by_soap::beta1, ranges::share},
                  field{"beta2", &scale_by_soap::beta2, ranges::share},
                  field{"shampoo_beta", &scale_by_soap::shampoo_beta, bounds{.low = -1, .high = 1, .below = true}},
                  field{"epsilon", &scale_by_soap::epsilon, ranges::not_negative},
                  field{"interval", &scale_by_soap::interval, ranges::count},
                  field{"largest", &scale_by_soap::largest, ranges::not_negative}};
  }

  std::vector<named_shape> arrays(shape const& s) const {
    auto const d = sides(s);
    std::vector<named_shape> list{{"exp_avg", s}, {"exp_avg_sq", s}};
    if (d.size()) {
      auto const n = static_cast<std::int64_t>(d.size());
      list.push_back({"statistics", shape{n}});
      list.push_back({"bases", shape{n}});
    }
    return list;
  }
  bool due(std::int64_t t) const { return t == 1 || (t > 2 && (t - 2) % interval == 0); }
  double cost(shape const& s) const {
    auto const d = sides(s);
    return std::pow(d.left, 3) + std::pow(d.right, 3);
  }
  template <class Algebra>
  static auto solution(basic_tensor_update<Algebra> const& t) {
    return t.array(3);
  }

  template <class Algebra>
  void observe(basic_tensor_update<Algebra> const& t) const {
    if (t.step == 1) add_statistics(t);
  }
  template <class Algebra>
  void solve(basic_tensor_update<Algebra> const& t) const {
    auto const d = sides(t.shape);
    renew(t, 0, d.left);
    renew(t, d.left * d.left, d.right);
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    auto const& algebra = t.algebra;
    auto const m = t.array(0), v = t.array(1);
    if (t.step == 1) {
      algebra.fill(t.update, 0);
      return;
    }
    std::int64_t const n = t.step - 1;
    std::size_t const size = t.update.size();
    auto const work = t.work(3 * size);
    auto const a = work.first(size), b = work.subspan(size, size), room = work.subspan(2 * size);
    algebra.map(m, detail::average{beta1, detail::complement(beta1)}, m, t.update);
    rotate(t, true, t.update, a, room);
    algebra.map(v, detail::average_squares{beta2, detail::complement(beta2)}, v, a);
    rotate(t, true, m, b, room);
    algebra.map(b,
                adam{static_cast<float>(detail::correction(beta1, n)), detail::root_correction(beta2, n),
                     detail::root_epsilon(epsilon)},
                b, v);
    add_statistics(t);
    rotate(t, false, b, t.update, room);
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  struct adam {
    float bias_correction1, bias_correction2, epsilon;
    template <class T>
    DOVETAIL_INLINE T operator()(T m, T v) const {
      return bias_correction1 * m / (bias_correction2 * simd::sqrt(v) + epsilon);
    }
  };

 private:
  /// Orders of the two bases; 0 where the identity is kept.
  struct orders {
    std::size_t left, right;
    std::size_t size() const { return left * left + right * right; }
  };
  orders sides(shape const& s) const {
    if (s.rank < 2) return {0, 0};
    std::size_t const rows = tensor_update::rows_of(s);
    std::size_t const columns = rows ? static_cast<std::size_t>(s.size()) / rows : 0;
    auto const most = static_cast<std::size_t>(largest);
    return {rows <= most ? rows : 0, columns <= most ? columns : 0};
  }
  template <class Algebra>
  void add_statistics(basic_tensor_update<Algebra> const& t) const {
    auto const d = sides(t.shape);
    if (!d.size()) return;
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    float const b3 = shampoo_beta < 0 ? beta2 : shampoo_beta, rest = detail::complement(b3);
    auto const left = t.array(2), right = left.subspan(d.left * d.left);
    matrix.gram(as::it_is, d.left, t.columns(), rest, t.update, t.columns(), b3, left);
    matrix.gram(as::transposed, d.right, t.rows(), rest, t.update, t.columns(), b3, right);
  }
  /// The basis of order n whose matrix begins at `at`; its columns are the eigenvectors, the largest first.
  template <class Algebra>
  static void renew(basic_tensor_update<Algebra> const& t, std::size_t at, std::size_t n) {
    if (n == 0) return;
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    auto const statistic = t.array(2).subspan(at, n * n), basis = t.array(3).subspan(at, n * n);
    if (t.step == 1) {
      matrix.eigenbasis(statistic, n, basis);
    } else {
      auto const product = t.work(n * n);
      matrix.multiply(as::it_is, as::it_is, n, n, n, 1, statistic, n, basis, n, 0, product, n);
      matrix.orthogonal_factor(product, n, basis);
    }
  }
  /// out <- P^T in Q, or P in Q^T.
  template <class Algebra>
  void rotate(basic_tensor_update<Algebra> const& t, bool into, typename Algebra::const_span in,
              typename Algebra::span out, typename Algebra::span room) const {
    auto const d = sides(t.shape);
    if (!d.size()) {
      t.algebra.copy(in, out);
      return;
    }
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    std::size_t const m = t.rows(), n = t.columns();
    auto const left = t.array(3), right = left.subspan(d.left * d.left);
    auto from = in;
    if (d.left) {
      matrix.multiply(into ? as::transposed : as::it_is, as::it_is, m, n, m, 1, left, m, from, n, 0, room, n);
      from = room;
    }
    if (d.right)
      matrix.multiply(as::it_is, into ? as::it_is : as::transposed, m, n, n, 1, from, n, right, n, 0, out, n);
    else
      t.algebra.copy(from, out);
  }
};

/// SOAP (Vyas et al., ICLR 2025), Adam in the eigenbases of Shampoo's second moments. Weight decay is decoupled. State
/// of a matrix {n, m}: 2 n m + 2 (n^2 + m^2) numbers.
struct soap {
  schedule lr = 3e-3f;
  float beta1 = 0.95f;
  float beta2 = 0.95f;  ///< share of the average of squares and of the second moments that a step keeps
  float epsilon = 1e-8f;
  std::int64_t interval = 10;    ///< steps from one renewal of the bases to the next
  std::int64_t largest = 10000;  ///< dimension that is preconditioned
  float weight_decay = 0.01f;
  static constexpr auto describe() {
    return policy{"soap",
                  field{"lr", &soap::lr},
                  field{"beta1", &soap::beta1, ranges::share},
                  field{"beta2", &soap::beta2, ranges::share},
                  field{"epsilon", &soap::epsilon, ranges::not_negative},
                  field{"interval", &soap::interval, ranges::count},
                  field{"largest", &soap::largest, ranges::not_negative},
                  field{"weight_decay", &soap::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_soap, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_soap{.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon, .interval = interval, .largest = largest},
            add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
