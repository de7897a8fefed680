// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/optim/linalg/algebra.hpp>
#include <dovetail/optim/matrix/lapack.hpp>

// What tensorwise stages may do to matrices, beyond optim/linalg/algebra.hpp: matrices_of(t.algebra) has
//
//   multiply, gram, power, inverse                as in optim/matrix/lapack.hpp, on what the algebra calls spans
//   eigen(a, n, vectors, values)                  eigenvectors as rows, eigenvalues ascending, none below 0
//   eigenbasis(a, n, basis)                       eigenvectors as columns, that of the largest eigenvalue first
//   orthogonal_factor(a, n, q)                    q <- the orthogonal factor of A {n, n}; its own memory
//   copy(rows, columns, from, stride, to, stride)
//   fill(rows, columns, value, to, stride)
//   trace(a, n)                                   a number
//
// Decompositions are in double precision, wherever they run.

namespace dovetail::optim {

/// Matrices in the host's memory: BLAS and LAPACK.
template <class T>
struct basic_host_matrices {
  using span = std::span<T>;
  using const_span = std::span<T const>;
  using as = lapack::as;

  static void multiply(as op_a, as op_b, std::size_t m, std::size_t n, std::size_t k, T alpha, const_span a,
                       std::size_t stride_a, const_span b, std::size_t stride_b, T beta, span c, std::size_t stride_c) {
    lapack::multiply<T>(op_a, op_b, m, n, k, alpha, a.data(), stride_a, b.data(), stride_b, beta, c.data(), stride_c);
  }
  static void gram(as op, std::size_t n, std::size_t k, T alpha, const_span a, std::size_t stride, T beta, span c) {
    lapack::gram<T>(op, n, k, alpha, a.data(), stride, beta, c.data());
  }
  static void power(const_span a, std::size_t n, double exponent, double ridge, span out) {
    lapack::power(a, n, exponent, ridge, out);
  }
  static void inverse(const_span a, std::size_t n, double ridge, span out) { lapack::inverse(a, n, ridge, out); }
  static void eigen(const_span a, std::size_t n, span vectors, span values) {
    auto const e = lapack::eigen(a, n);
    std::transform(e.vectors.begin(), e.vectors.end(), vectors.begin(), rounded_to);
    std::transform(e.values.begin(), e.values.end(), values.begin(),
                   [](double x) { return rounded_to(std::max(x, 0.0)); });
  }
  static void eigenbasis(const_span a, std::size_t n, span basis) {
    auto const e = lapack::eigen(a, n);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) basis[i * n + j] = rounded_to(e.vectors[(n - 1 - j) * n + i]);
  }
  static void orthogonal_factor(const_span a, std::size_t n, span q) {
    lapack::detail::check_finite<T>(a, "a QR decomposition", n);
    std::vector<double> x(a.begin(), a.end());
    lapack::orthogonal_factor(x, n);
    std::transform(x.begin(), x.end(), q.begin(), rounded_to);
  }
  static void copy(std::size_t rows, std::size_t columns, const_span from, std::size_t from_stride, span to,
                   std::size_t to_stride) {
    for (std::size_t r = 0; r < rows; ++r)
      std::copy_n(from.data() + r * from_stride, columns, to.data() + r * to_stride);
  }
  static void fill(std::size_t rows, std::size_t columns, T value, span to, std::size_t stride) {
    for (std::size_t r = 0; r < rows; ++r) std::fill_n(to.data() + r * stride, columns, value);
  }
  static double trace(const_span a, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i * n + i]);
    return sum;
  }

 private:
  static T rounded_to(double x) { return static_cast<T>(x); }
};

using host_matrices = basic_host_matrices<float>;

template <class T>
basic_host_matrices<T> matrices_of(basic_host_algebra<T> const&) {
  return {};
}

}  // namespace dovetail::optim
