// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

// The dense algebra of second-order rules, by whichever BLAS and LAPACK the program is linked with (OpenBLAS, MKL,
// reference): CMake's dovetail::lapack. Matrices are row-major. Products are in their numbers' precision,
// decompositions in double: roots of nearly singular matrices need it. How many cores are used is the library's own
// setting (OPENBLAS_NUM_THREADS).

extern "C" {
// Under names of their own, so that they agree with any other declaration in a program. The last arguments are the
// lengths of strings that Fortran compilers pass.
void dovetail_sgemm(char const* transa, char const* transb, int const* m, int const* n, int const* k,
                    float const* alpha, float const* a, int const* lda, float const* b, int const* ldb,
                    float const* beta, float* c, int const* ldc, std::size_t, std::size_t) __asm__("sgemm_");
void dovetail_dgemm(char const* transa, char const* transb, int const* m, int const* n, int const* k,
                    double const* alpha, double const* a, int const* lda, double const* b, int const* ldb,
                    double const* beta, double* c, int const* ldc, std::size_t, std::size_t) __asm__("dgemm_");
void dovetail_dsyrk(char const* uplo, char const* trans, int const* n, int const* k, double const* alpha,
                    double const* a, int const* lda, double const* beta, double* c, int const* ldc, std::size_t,
                    std::size_t) __asm__("dsyrk_");
void dovetail_ssyrk(char const* uplo, char const* trans, int const* n, int const* k, float const* alpha, float const* a,
                    int const* lda, float const* beta, float* c, int const* ldc, std::size_t,
                    std::size_t) __asm__("ssyrk_");
void dovetail_dsyevd(char const* jobz, char const* uplo, int const* n, double* a, int const* lda, double* w,
                     double* work, int const* lwork, int* iwork, int const* liwork, int* info, std::size_t,
                     std::size_t) __asm__("dsyevd_");
void dovetail_dgeqrf(int const* m, int const* n, double* a, int const* lda, double* tau, double* work, int const* lwork,
                     int* info) __asm__("dgeqrf_");
void dovetail_dorgqr(int const* m, int const* n, int const* k, double* a, int const* lda, double const* tau,
                     double* work, int const* lwork, int* info) __asm__("dorgqr_");
void dovetail_dpotrf(char const* uplo, int const* n, double* a, int const* lda, int* info,
                     std::size_t) __asm__("dpotrf_");
void dovetail_dpotri(char const* uplo, int const* n, double* a, int const* lda, int* info,
                     std::size_t) __asm__("dpotri_");
}

namespace dovetail::optim::lapack {

/// How a product's factor is used.
enum class as : char { it_is = 'N', transposed = 'T' };

namespace detail {
inline int to_int(std::size_t n) {
  require(n <= static_cast<std::size_t>(std::numeric_limits<int>::max()), "lapack: a dimension of ", n,
          " is beyond what BLAS takes");
  return static_cast<int>(n);
}
inline void check_info(int info, char const* what, std::size_t n) {
  require<numeric_error>(info == 0, "lapack: ", what, " of order ", n, " failed with info ", info,
                         ": the matrix holds numbers that are not finite, or the iteration did not converge");
}
/// Throws numeric_error unless a matrix that is to be decomposed is finite: LAPACK may go on for ever, or not tell.
template <class T>
void check_finite(std::span<T const> a, char const* what, std::size_t n) {
  require<numeric_error>(all_finite(a), "lapack: ", what, " of order ", n,
                         ": the matrix holds numbers that are not finite, because gradients are not or their squares "
                         "overflow: put optim::skip_non_finite before the rule");
}
}  // namespace detail

/// C <- alpha op(A) op(B) + beta C with C {m, n} and k what is summed over; `stride_…` elements from row to row.
template <class T>
void multiply(as op_a, as op_b, std::size_t m, std::size_t n, std::size_t k, std::type_identity_t<T> alpha, T const* a,
              std::size_t stride_a, T const* b, std::size_t stride_b, std::type_identity_t<T> beta, T* c,
              std::size_t stride_c) {
  if (m == 0 || n == 0) return;
  // Row-major C is column-major C^T = op(B)^T op(A)^T.
  char const ta = static_cast<char>(op_a), tb = static_cast<char>(op_b);
  int const rows = detail::to_int(m), columns = detail::to_int(n), depth = detail::to_int(k),
            lda = detail::to_int(stride_a), ldb = detail::to_int(stride_b), ldc = detail::to_int(stride_c);
  if constexpr (std::is_same_v<T, float>)
    dovetail_sgemm(&tb, &ta, &columns, &rows, &depth, &alpha, b, &ldb, a, &lda, &beta, c, &ldc, 1, 1);
  else
    dovetail_dgemm(&tb, &ta, &columns, &rows, &depth, &alpha, b, &ldb, a, &lda, &beta, c, &ldc, 1, 1);
}

/// C <- alpha A A^T + beta C (or A^T A), C {n, n} in whole; A {n, k} (or {k, n}).
template <class T>
void gram(as op, std::size_t n, std::size_t k, std::type_identity_t<T> alpha, T const* a, std::size_t stride,
          std::type_identity_t<T> beta, T* c) {
  if (n == 0) return;
  char const upper = 'L', t = op == as::it_is ? 'T' : 'N';  // column-major lower is row-major upper
  int const order = detail::to_int(n), depth = detail::to_int(k), lda = detail::to_int(stride);
  if constexpr (std::is_same_v<T, float>)
    dovetail_ssyrk(&upper, &t, &order, &depth, &alpha, a, &lda, &beta, c, &order, 1, 1);
  else
    dovetail_dsyrk(&upper, &t, &order, &depth, &alpha, a, &lda, &beta, c, &order, 1, 1);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i + 1; j < n; ++j) c[j * n + i] = c[i * n + j];
}

/// A symmetric matrix A = V diag(values) V^T: eigenvalues ascending, the eigenvectors as the rows of `vectors`.
struct eigen_system {
  std::vector<double> values, vectors;
};
template <class T>
eigen_system eigen_of(std::span<T const> a, std::size_t n) {
  require(a.size() == n * n, "lapack::eigen: ", a.size(), " elements for a matrix of order ", n);
  eigen_system e{std::vector<double>(n), {a.begin(), a.end()}};
  if (n == 0) return e;
  detail::check_finite(a, "an eigenvalue problem", n);
  char const job = 'V', upper = 'U';
  int const order = detail::to_int(n);
  int info = 0, size = -1, isize = -1, best_i = 0;
  double best = 0;
  dovetail_dsyevd(&job, &upper, &order, e.vectors.data(), &order, e.values.data(), &best, &size, &best_i, &isize, &info,
                  1, 1);
  size = static_cast<int>(best);
  isize = best_i;
  std::vector<double> work(static_cast<std::size_t>(size));
  std::vector<int> iwork(static_cast<std::size_t>(isize));
  dovetail_dsyevd(&job, &upper, &order, e.vectors.data(), &order, e.values.data(), work.data(), &size, iwork.data(),
                  &isize, &info, 1, 1);
  detail::check_info(info, "an eigenvalue problem", n);
  return e;
}

inline eigen_system eigen(std::span<float const> a, std::size_t n) { return eigen_of(a, n); }
inline eigen_system eigen(std::span<double const> a, std::size_t n) { return eigen_of(a, n); }

/// out <- (A + ridge max(largest eigenvalue, tiny) I)^power for a symmetric positive semidefinite A {n, n}. Eigenvalues
/// that rounding made negative count as 0.
template <class T>
void power_of(std::span<T const> a, std::size_t n, double exponent, double ridge, std::span<T> out) {
  if (n == 0) return;
  auto e = eigen(a, n);
  double const largest = std::max(e.values.back(), std::is_same_v<T, float> ? 1e-30 : 1e-200);
  std::vector<T> left(n * n), right(e.vectors.begin(), e.vectors.end());
  for (std::size_t i = 0; i < n; ++i) {
    double const f = std::pow(std::max(e.values[i], 0.0) + ridge * largest, exponent);
    for (std::size_t j = 0; j < n; ++j) left[i * n + j] = static_cast<T>(f * e.vectors[i * n + j]);
  }
  multiply<T>(as::transposed, as::it_is, n, n, n, 1, left.data(), n, right.data(), n, 0, out.data(), n);
}

inline void power(std::span<float const> a, std::size_t n, double exponent, double ridge, std::span<float> out) {
  power_of(a, n, exponent, ridge, out);
}
inline void power(std::span<double const> a, std::size_t n, double exponent, double ridge, std::span<double> out) {
  power_of(a, n, exponent, ridge, out);
}

/// out <- (A + ridge I)^-1 for a symmetric positive semidefinite A {n, n} and a positive ridge, by Cholesky.
template <class T>
void inverse_of(std::span<T const> a, std::size_t n, double ridge, std::span<T> out) {
  if (n == 0) return;
  require(a.size() == n * n && out.size() == n * n, "lapack::inverse: ", a.size(), " elements for a matrix of order ",
          n);
  detail::check_finite(a, "a Cholesky decomposition", n);
  std::vector<double> x(a.begin(), a.end());
  for (std::size_t i = 0; i < n; ++i) x[i * n + i] += ridge;
  char const lower = 'L';  // row-major upper
  int const order = detail::to_int(n);
  int info = 0;
  dovetail_dpotrf(&lower, &order, x.data(), &order, &info, 1);
  detail::check_info(info, "a Cholesky decomposition", n);
  dovetail_dpotri(&lower, &order, x.data(), &order, &info, 1);
  detail::check_info(info, "an inverse", n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i; j < n; ++j) out[i * n + j] = out[j * n + i] = static_cast<T>(x[i * n + j]);
}
inline void inverse(std::span<float const> a, std::size_t n, double ridge, std::span<float> out) {
  inverse_of(a, n, ridge, out);
}
inline void inverse(std::span<double const> a, std::size_t n, double ridge, std::span<double> out) {
  inverse_of(a, n, ridge, out);
}

/// The orthogonal factor of the QR decomposition of A {n, n}, whose diagonal of R is made positive.
inline void orthogonal_factor(std::span<double> a, std::size_t n) {
  if (n == 0) return;
  // LAPACK sees columns: it is given A^T's columns, the rows of A^T being the columns of A.
  std::vector<double> columns(n * n), tau(n), sign(n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) columns[j * n + i] = a[i * n + j];
  int const order = detail::to_int(n);
  int info = 0, size = -1;
  double best = 0, other = 0;
  dovetail_dgeqrf(&order, &order, columns.data(), &order, tau.data(), &best, &size, &info);
  dovetail_dorgqr(&order, &order, &order, columns.data(), &order, tau.data(), &other, &size, &info);
  size = static_cast<int>(std::max(best, other));
  std::vector<double> work(static_cast<std::size_t>(size));
  dovetail_dgeqrf(&order, &order, columns.data(), &order, tau.data(), work.data(), &size, &info);
  detail::check_info(info, "a QR decomposition", n);
  for (std::size_t i = 0; i < n; ++i) sign[i] = columns[i * n + i] < 0 ? -1 : 1;
  dovetail_dorgqr(&order, &order, &order, columns.data(), &order, tau.data(), work.data(), &size, &info);
  detail::check_info(info, "the orthogonal factor", n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) a[i * n + j] = sign[j] * columns[j * n + i];
}

}  // namespace dovetail::optim::lapack
