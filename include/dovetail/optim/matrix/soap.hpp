// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/optim/directions/corrections.hpp>
#include <dovetail/optim/matrix/lapack.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/span_math.hpp>
#include <dovetail/optim/stages.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// SOAP (Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025, algorithm 3): Adam in the
/// eigenbases P of L and Q of R. m <- b1 m + (1 - b1) u; v <- b2 v + (1 - b2) (P^T u Q)^2;
/// u <- P (P^T m^ Q / (sqrt(v^) + epsilon)) Q^T; then L <- b3 L + (1 - b3) u u^T, R <- b3 R + (1 - b3) u^T u with the u
/// that came, and every `interval` steps one step of orthogonal iteration, P <- QR(L P). The first step only begins the
/// bases. A dimension above `largest` keeps the identity as its basis; of a vector it is Adam. With beta1 = 0 it is the
/// eigenvalue-corrected Shampoo. Each tensor's bases are worked out by one rank.
struct scale_by_soap {
  float beta1 = 0.95f, beta2 = 0.95f;
  float shampoo_beta = -1;  ///< b3; negative: beta2
  float epsilon = 1e-8f;
  std::int64_t interval = 10;
  std::int64_t largest = 10000;
  static constexpr bool tensorwise = true;

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
  static std::span<float> solution(tensor_update const& t) { return t.array(3); }

  void observe(tensor_update const& t) const {
    if (t.step == 1) add_statistics(t);
  }
  void solve(tensor_update const& t) const {
    auto const d = sides(t.shape);
    renew(t, 0, d.left);
    renew(t, d.left * d.left, d.right);
  }
  void apply(tensor_update const& t) const {
    auto const m = t.array(0), v = t.array(1);
    if (t.step == 1) {
      std::fill(t.update.begin(), t.update.end(), 0.0f);
      return;
    }
    std::int64_t const n = t.step - 1;
    float const b1 = beta1, rest1 = detail::complement(beta1), b2 = beta2, rest2 = detail::complement(beta2);
    auto const correct1 = static_cast<float>(detail::correction(beta1, n)), e = epsilon;
    float const correct2 = detail::root_correction(beta2, n);
    std::size_t const size = t.update.size();
    auto const work = t.work(3 * size);
    auto const a = work.first(size), b = work.subspan(size, size), room = work.subspan(2 * size);
    detail::map(
        m, [=](simd::pack x, simd::pack u) { return b1 * x + rest1 * u; }, m, t.update);
    rotate(t, true, t.update, a, room);
    detail::map(
        v, [=](simd::pack x, simd::pack u) { return b2 * x + rest2 * (u * u); }, v, a);
    rotate(t, true, m, b, room);
    detail::map(
        b, [=](simd::pack x, simd::pack y) { return correct1 * x / (correct2 * simd::sqrt(y) + e); }, b, v);
    add_statistics(t);
    rotate(t, false, b, t.update, room);
  }

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
  void add_statistics(tensor_update const& t) const {
    auto const d = sides(t.shape);
    if (!d.size()) return;
    float const b3 = shampoo_beta < 0 ? beta2 : shampoo_beta, rest = detail::complement(b3);
    float* const left = t.array(2).data();
    lapack::gram(lapack::as::it_is, d.left, t.columns(), rest, t.update.data(), t.columns(), b3, left);
    lapack::gram(lapack::as::transposed, d.right, t.rows(), rest, t.update.data(), t.columns(), b3,
                 left + d.left * d.left);
  }
  /// The basis of order n whose matrix begins at `at`; its columns are the eigenvectors, the largest first.
  static void renew(tensor_update const& t, std::size_t at, std::size_t n) {
    auto const statistic = t.array(2).subspan(at, n * n), basis = t.array(3).subspan(at, n * n);
    if (t.step == 1) {
      auto const e = lapack::eigen(statistic, n);
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < n; ++j) basis[i * n + j] = static_cast<float>(e.vectors[(n - 1 - j) * n + i]);
    } else if (n) {
      auto const product = t.work(n * n);
      lapack::multiply(lapack::as::it_is, lapack::as::it_is, n, n, n, 1, statistic.data(), n, basis.data(), n, 0,
                       product.data(), n);
      std::vector<double> q(product.begin(), product.end());
      lapack::orthogonal_factor(q, n);
      std::transform(q.begin(), q.end(), basis.begin(), [](double x) { return static_cast<float>(x); });
    }
  }
  /// out <- P^T in Q, or P in Q^T.
  void rotate(tensor_update const& t, bool into, std::span<float const> in, std::span<float> out,
              std::span<float> room) const {
    auto const d = sides(t.shape);
    std::size_t const m = t.rows(), n = t.columns();
    float const* const left = d.size() ? t.array(3).data() : nullptr;
    using lapack::as;
    float const* from = in.data();
    if (d.left) {
      lapack::multiply(into ? as::transposed : as::it_is, as::it_is, m, n, m, 1, left, m, from, n, 0, room.data(), n);
      from = room.data();
    }
    if (d.right)
      lapack::multiply(as::it_is, into ? as::it_is : as::transposed, m, n, n, 1, from, n, left + d.left * d.left, n, 0,
                       out.data(), n);
    else
      std::copy(from, from + in.size(), out.begin());
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

  using rule = chain<scale_by_soap, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_soap{.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon, .interval = interval, .largest = largest},
            add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
