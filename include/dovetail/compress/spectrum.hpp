// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <dovetail/compress/spectral_kernels.hpp>
#include <dovetail/core/rounded.hpp>

namespace dovetail::compress::detail {

/// Singular values of a matrix, and singular vectors for those that ask: they cost little one at a time. Needs the
/// compiler only, and gives the same bits in every run and on every vector level.
///
/// Of X {m, n}, m rows no longer than the n columns, the eigenvalues of X Xᵀ are found: Householder's reflections make
/// it tridiagonal, implicit QR steps with Wilkinson's shift make that diagonal. Reflections and rotations are kept and
/// applied to the unit vectors of those eigenvectors that are asked for. In double: about m² n + 4/3 m³ operations and
/// 8 m² bytes for the matrix, up to 16 m² for the rotations.
///
/// The vectors are orthonormal to the precision of a double whatever happens: an element of X Xᵀ or of the tridiagonal
/// matrix that is taken for 0 (below 2^−53 of the trace; whatever is left after 30 m steps) turns vectors of nearby
/// values into one another and nothing else. With u_i the vectors, X = Σ u_i (u_iᵀ X) always holds. X Xᵀ knows of a
/// singular value σ no more than σ² ± 2^−52 of the largest's, and those below 2^−24 of the largest, half a unit in the
/// last place of the floats of X, are said to be 0.
///
/// Sources: Martin, Reinsch, Wilkinson, "Householder's Tridiagonalization of a Symmetric Matrix", Numerische Mathematik
/// 1968; Golub and Van Loan, "Matrix Computations", section 8.3.
class spectrum {
 public:
  /// Of m rows of n finite floats one behind the other, m <= n.
  void decompose(float const* x, std::size_t m, std::size_t n) {
    m_ = m;
    matrix_.resize(m * m);
    for (auto* v : {&diagonal_, &beside_, &scale_, &reflector_, &product_, &values_}) v->assign(m, 0.0);
    order_.resize(m);
    rotations_.clear();
    passes_.clear();
    auto const& kernel = spectral_kernels::best();
    kernel.gram(x, m, n, matrix_.data());
    double trace = 0;
    for (std::size_t i = 0; i < m; ++i) trace += matrix_[i * m + i];
    double const negligible = trace * 0x1p-53;
    make_tridiagonal(negligible, kernel);
    make_diagonal(negligible);
    std::iota(order_.begin(), order_.end(), std::uint32_t{0});
    std::sort(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) {
      return diagonal_[a] > diagonal_[b] || (diagonal_[a] >= diagonal_[b] && a < b);
    });
    for (std::size_t i = 0; i < m; ++i) {
      double const square = diagonal_[order_[i]];
      if (!(square > 0) || square < diagonal_[order_[0]] * 0x1p-48) break;
      values_[i] = std::sqrt(square);
    }
  }
  /// Singular values, the largest first.
  std::span<double const> values() const { return values_; }
  /// The vector of values()[which], of length 1: m numbers.
  void vector(std::size_t which, std::span<double> u) const {
    std::fill(u.begin(), u.end(), 0.0);
    u[order_[which]] = 1;
    auto rotation = rotations_.size();
    for (auto p = passes_.size(); p-- > 0;)
      for (std::size_t k = passes_[p].end; k-- > passes_[p].begin;) {
        auto const& [c, s] = rotations_[--rotation];
        double const a = u[k], b = u[k + 1];
        u[k] = rounded(c * a) - rounded(s * b);
        u[k + 1] = rounded(s * a) + rounded(c * b);
      }
    for (std::size_t last = 1; last < m_; ++last) {
      if (!(scale_[last] > 0)) continue;
      double const* const v = matrix_.data() + last * m_;
      double along = 0;
      for (std::size_t i = 0; i < last; ++i) along += rounded(v[i] * u[i]);
      along *= scale_[last];
      for (std::size_t i = 0; i < last; ++i) u[i] -= rounded(along * v[i]);
    }
  }

 private:
  struct plane_rotation {
    double c, s;
  };
  /// Rotations of the planes (k, k + 1), k from begin to end.
  struct pass {
    std::uint32_t begin, end;
  };

  /// From the last row up: what is left of the diagonal's neighbor in row `last` is reflected to 0, by 1 − scale v vᵀ
  /// of the elements in front of the diagonal. v stays where the row was.
  void make_tridiagonal(double negligible, spectral_kernels::kernel_set const& kernel) {
    for (std::size_t last = m_; last-- > 0;) {
      double* const v = matrix_.data() + last * m_;
      diagonal_[last] = v[last];
      if (last == 0) return;
      double& pivot = v[last - 1];
      double others = 0;
      for (std::size_t i = 0; i + 1 < last; ++i) others += rounded(v[i] * v[i]);
      beside_[last - 1] = pivot;
      if (!(others > negligible * negligible)) continue;
      double const length = std::sqrt(others + rounded(pivot * pivot));
      double const image = pivot > 0 ? -length : length;
      scale_[last] = 1 / (rounded(length * length) - rounded(pivot * image));
      pivot -= image;
      beside_[last - 1] = image;
      // A − v qᵀ − q vᵀ with q = p − v (scale pᵀv / 2), p = scale A v.
      kernel.multiply(matrix_.data(), m_, last, v, product_.data());
      double along = 0;
      for (std::size_t i = 0; i < last; ++i) {
        product_[i] *= scale_[last];
        along += rounded(product_[i] * v[i]);
      }
      along *= 0.5 * scale_[last];
      for (std::size_t i = 0; i < last; ++i) reflector_[i] = product_[i] - rounded(along * v[i]);
      kernel.subtract_products(matrix_.data(), m_, last, v, reflector_.data());
    }
  }

  void make_diagonal(double negligible) {
    std::size_t last = m_ == 0 ? 0 : m_ - 1;
    for (std::size_t steps = 0; last > 0 && steps < 30 * m_; ++steps) {
      while (last > 0 && !(std::fabs(beside_[last - 1]) > negligible)) --last;
      if (last == 0) return;
      std::size_t first = last - 1;
      while (first > 0 && std::fabs(beside_[first - 1]) > negligible) --first;
      qr_step(first, last);
    }
  }
  /// One implicit step on the unreduced part [first, last].
  void qr_step(std::size_t first, std::size_t last) {
    double const half = (diagonal_[last - 1] - diagonal_[last]) / 2, side = beside_[last - 1];
    double const root = std::sqrt(rounded(half * half) + rounded(side * side));
    double const shift = diagonal_[last] - side * (side / (half + (half > 0 ? root : -root)));
    double x = diagonal_[first] - shift, bulge = beside_[first];
    for (std::size_t k = first; k < last; ++k) {
      double const length = std::sqrt(rounded(x * x) + rounded(bulge * bulge));
      double const c = length > 0 ? x / length : 1, s = length > 0 ? bulge / length : 0;
      if (k > first) beside_[k - 1] = length;
      double const a = diagonal_[k], b = beside_[k], d = diagonal_[k + 1];
      // From differences, so that the sum of both stays as it is.
      double const moved = s * (rounded(s * (d - a)) + rounded(2 * c * b));
      diagonal_[k] = a + moved;
      diagonal_[k + 1] = d - moved;
      beside_[k] = rounded(rounded(c * s) * (d - a)) + rounded((rounded(c * c) - rounded(s * s)) * b);
      rotations_.push_back({c, s});
      if (k + 1 == last) break;
      x = beside_[k];
      bulge = rounded(s * beside_[k + 1]);
      beside_[k + 1] *= c;
    }
    passes_.push_back({static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last)});
  }

  std::size_t m_ = 0;
  std::vector<double> matrix_;                        // X Xᵀ, then the vectors of the reflections
  std::vector<double> diagonal_, beside_, scale_;     // of the tridiagonal matrix; of the reflections
  std::vector<double> reflector_, product_, values_;  // scratch memory; singular values
  std::vector<std::uint32_t> order_;
  std::vector<plane_rotation> rotations_;
  std::vector<pass> passes_;
};

}  // namespace dovetail::compress::detail
