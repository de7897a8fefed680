// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The few functions of BLAS and LAPACK that the host's engine calls, in plain loops: machines with a GPU may have
// neither library, and the device's results are compared with something that shares no line with cuBLAS or cuSOLVER.
// Matrices are column-major, as theirs are.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace {
using std::size_t;
size_t at(int row, int column, int stride) {
  return static_cast<size_t>(column) * static_cast<size_t>(stride) + static_cast<size_t>(row);
}
std::vector<double> q_of_last;  // between dgeqrf_ and dorgqr_
}  // namespace

extern "C" {

void sgemm_(char const* ta, char const* tb, int const* m, int const* n, int const* k, float const* alpha,
            float const* a, int const* lda, float const* b, int const* ldb, float const* beta, float* c, int const* ldc,
            size_t, size_t) {
  for (int j = 0; j < *n; ++j)
    for (int i = 0; i < *m; ++i) {
      double sum = 0;
      for (int l = 0; l < *k; ++l)
        sum += double(a[*ta == 'N' ? at(i, l, *lda) : at(l, i, *lda)]) *
               double(b[*tb == 'N' ? at(l, j, *ldb) : at(j, l, *ldb)]);
      float& to = c[at(i, j, *ldc)];
      to = static_cast<float>(double(*alpha) * sum + (*beta == 0 ? 0 : double(*beta) * double(to)));
    }
}

void ssyrk_(char const*, char const* t, int const* n, int const* k, float const* alpha, float const* a, int const* lda,
            float const* beta, float* c, int const* ldc, size_t, size_t) {
  char const other = *t == 'N' ? 'T' : 'N';
  sgemm_(t, &other, n, n, k, alpha, a, lda, a, lda, beta, c, ldc, 1, 1);
}

/// Jacobi's rotations.
void dsyevd_(char const*, char const* uplo, int const* order, double* a, int const*, double* w, double* work,
             int const* lwork, int* iwork, int const*, int* info, size_t, size_t) {
  int const n = *order;
  *info = 0;
  if (*lwork < 0) {
    *work = *iwork = 1;
    return;
  }
  std::vector<double> m(a, a + n * n), v(static_cast<size_t>(n * n));
  for (int i = 0; i < n; ++i) {
    v[at(i, i, n)] = 1;
    for (int j = 0; j < i; ++j)
      (*uplo == 'U' ? m[at(i, j, n)] : m[at(j, i, n)]) = *uplo == 'U' ? m[at(j, i, n)] : m[at(i, j, n)];
  }
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) (i == j ? all : off) += m[at(i, j, n)] * m[at(i, j, n)];
    if (off <= 1e-30 * all) break;
    for (int p = 0; p < n; ++p)
      for (int q = p + 1; q < n; ++q) {
        double const g = m[at(p, q, n)];
        if (g == 0) continue;
        double const theta = (m[at(q, q, n)] - m[at(p, p, n)]) / (2 * g);
        double const t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        double const c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int i = 0; i < n; ++i) {
          double const x = m[at(i, p, n)], y = m[at(i, q, n)];
          m[at(i, p, n)] = c * x - s * y;
          m[at(i, q, n)] = s * x + c * y;
        }
        for (int i = 0; i < n; ++i) {
          double const x = m[at(p, i, n)], y = m[at(q, i, n)];
          m[at(p, i, n)] = c * x - s * y;
          m[at(q, i, n)] = s * x + c * y;
        }
        for (int i = 0; i < n; ++i) {
          double const x = v[at(i, p, n)], y = v[at(i, q, n)];
          v[at(i, p, n)] = c * x - s * y;
          v[at(i, q, n)] = s * x + c * y;
        }
      }
  }
  std::vector<int> by(static_cast<size_t>(n));
  std::iota(by.begin(), by.end(), 0);
  std::sort(by.begin(), by.end(), [&](int x, int y) { return m[at(x, x, n)] < m[at(y, y, n)]; });
  for (int j = 0; j < n; ++j) {
    int const from = by[static_cast<size_t>(j)];
    w[j] = m[at(from, from, n)];
    for (int i = 0; i < n; ++i) a[at(i, j, n)] = v[at(i, from, n)];
  }
}

/// Gram and Schmidt, each column twice: R's diagonal is positive, which is what is left in A for the caller to see.
void dgeqrf_(int const* rows, int const*, double* a, int const*, double*, double* work, int const* lwork, int* info) {
  int const n = *rows;
  *info = 0;
  if (*lwork < 0) {
    *work = 1;
    return;
  }
  q_of_last.assign(a, a + n * n);
  auto& q = q_of_last;
  for (int j = 0; j < n; ++j) {
    for (int again = 0; again < 2; ++again)
      for (int k = 0; k < j; ++k) {
        double dot = 0;
        for (int i = 0; i < n; ++i) dot += q[at(i, k, n)] * q[at(i, j, n)];
        for (int i = 0; i < n; ++i) q[at(i, j, n)] -= dot * q[at(i, k, n)];
      }
    double square = 0;
    for (int i = 0; i < n; ++i) square += q[at(i, j, n)] * q[at(i, j, n)];
    for (int i = 0; i < n; ++i) q[at(i, j, n)] /= std::sqrt(square);
    a[at(j, j, n)] = std::sqrt(square);
  }
}
void dorgqr_(int const* rows, int const*, int const*, double* a, int const*, double const*, double* work,
             int const* lwork, int* info) {
  *info = 0;
  if (*lwork < 0)
    *work = 1;
  else
    std::copy_n(q_of_last.begin(), *rows * *rows, a);
}

/// The lower half; info is the order of the first minor that is not positive.
void dpotrf_(char const*, int const* order, double* a, int const*, int* info, size_t) {
  int const n = *order;
  *info = 0;
  for (int j = 0; j < n; ++j)
    for (int i = j; i < n; ++i) {
      double sum = a[at(i, j, n)];
      for (int k = 0; k < j; ++k) sum -= a[at(i, k, n)] * a[at(j, k, n)];
      if (i == j && !(sum > 0)) {
        *info = j + 1;
        return;
      }
      a[at(i, j, n)] = i == j ? std::sqrt(sum) : sum / a[at(j, j, n)];
    }
}
void dpotri_(char const*, int const* order, double* a, int const*, int* info, size_t) {
  int const n = *order;
  *info = 0;
  std::vector<double> inverse(static_cast<size_t>(n * n));  // of L
  for (int j = 0; j < n; ++j)
    for (int i = j; i < n; ++i) {
      double sum = i == j;
      for (int k = j; k < i; ++k) sum -= a[at(i, k, n)] * inverse[at(k, j, n)];
      inverse[at(i, j, n)] = sum / a[at(i, i, n)];
    }
  for (int j = 0; j < n; ++j)
    for (int i = j; i < n; ++i) {
      double sum = 0;
      for (int k = i; k < n; ++k) sum += inverse[at(k, i, n)] * inverse[at(k, j, n)];
      a[at(i, j, n)] = sum;
    }
}
}
