// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cublas_v2.h>
#include <cusolverDn.h>

#include <algorithm>
#include <vector>

#include <dovetail/optim/matrix/lapack.hpp>

#include "memory.hpp"
#include "runtime.hpp"

// cuBLAS and cuSOLVER by the host's BLAS and LAPACK. All operands must be device memory as large as the call says.

struct cublasContext {
  emulated::owned owned{"cuBLAS handle"};
  int device = emulated::current_device();
  cudaStream_t stream = nullptr;
};
struct cusolverDnContext {
  emulated::owned owned{"cuSOLVER handle"};
  int device = emulated::current_device();
  cudaStream_t stream = nullptr;
};

namespace {
using emulated::fail;
using std::size_t;

constexpr cublasStatus_t blas_ok = CUBLAS_STATUS_SUCCESS, blas_bad = CUBLAS_STATUS_INVALID_VALUE;
constexpr cusolverStatus_t ok = CUSOLVER_STATUS_SUCCESS, bad = CUSOLVER_STATUS_INVALID_VALUE;

template <class T>
void check_array(char const* call, char const* name, T const* p, int n) {
  if (n > 0 && !emulated::holds(p, static_cast<size_t>(n) * sizeof(T)))
    fail("%s: %s is not %d elements of device memory", call, name, n);
}
template <class T>
void check_matrix(char const* call, char const* name, T const* p, int rows, int columns, int stride) {
  if (rows > 0 && columns > 0) check_array(call, name, p, (columns - 1) * stride + rows);
}
char letter(cublasOperation_t op) { return op == CUBLAS_OP_N ? 'N' : 'T'; }
char letter(cublasFillMode_t uplo) { return uplo == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }

/// What all decompositions check; their room is overwritten, so that it has to be what it is said to be.
bool refuses(char const* call, int m, int n, double const* a, int lda, double* work, int size, int needed, int* info) {
  if (m < 0 || n < 0 || lda < std::max(1, m) || size < needed) return true;
  check_matrix(call, "the matrix", a, m, n, lda);
  check_array(call, "the room", work, size);
  check_array(call, "info", info, 1);
  return false;
}
cusolverStatus_t queued(cusolverDnHandle_t h, double* work, int size, emulated::work w) {
  auto const all = [work, size, w] {
    std::fill_n(work, size, std::numeric_limits<double>::quiet_NaN());
    w();
  };
  emulated::require_current("a cuSOLVER handle", h->device);
  return emulated::queue(h->stream, all) == cudaSuccess ? ok : CUSOLVER_STATUS_EXECUTION_FAILED;
}
cusolverStatus_t size_is(int n, int* size) {
  *size = std::max(1, n);
  return ok;
}
}  // namespace

// ---- cuBLAS

char const* cublasGetStatusName(cublasStatus_t s) {
  return s == blas_ok ? "CUBLAS_STATUS_SUCCESS" : s == blas_bad ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_OTHER";
}
cublasStatus_t cublasCreate(cublasHandle_t* h) {
  if (emulated::refuse_in_capture() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *h = new cublasContext;
  return blas_ok;
}
cublasStatus_t cublasDestroy(cublasHandle_t h) {
  emulated::require_current("a cuBLAS handle", h->device);
  delete h;
  return blas_ok;
}
cublasStatus_t cublasSetStream(cublasHandle_t h, cudaStream_t s) {
  h->stream = s;
  return blas_ok;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void* room, size_t bytes) {
  return emulated::holds(room, bytes) ? blas_ok : blas_bad;
}

cublasStatus_t cublasSgemm(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                           float const* alpha, float const* a, int lda, float const* b, int ldb, float const* beta,
                           float* c, int ldc) {
  int const rows_a = op_a == CUBLAS_OP_N ? m : k, rows_b = op_b == CUBLAS_OP_N ? k : n;
  if (m < 0 || n < 0 || k < 0 || lda < std::max(1, rows_a) || ldb < std::max(1, rows_b) || ldc < std::max(1, m))
    return blas_bad;
  check_matrix("cublasSgemm", "A", a, rows_a, op_a == CUBLAS_OP_N ? k : m, lda);
  check_matrix("cublasSgemm", "B", b, rows_b, op_b == CUBLAS_OP_N ? n : k, ldb);
  check_matrix("cublasSgemm", "C", c, m, n, ldc);
  auto const call = [=, ta = letter(op_a), tb = letter(op_b), x = *alpha, y = *beta] {
    dovetail_sgemm(&ta, &tb, &m, &n, &k, &x, a, &lda, b, &ldb, &y, c, &ldc, 1, 1);
  };
  emulated::require_current("a cuBLAS handle", h->device);
  return emulated::queue(h->stream, call) == cudaSuccess ? blas_ok : CUBLAS_STATUS_EXECUTION_FAILED;
}
cublasStatus_t cublasSsyrk(cublasHandle_t h, cublasFillMode_t uplo, cublasOperation_t op, int n, int k,
                           float const* alpha, float const* a, int lda, float const* beta, float* c, int ldc) {
  int const rows = op == CUBLAS_OP_N ? n : k;
  if (n < 0 || k < 0 || lda < std::max(1, rows) || ldc < std::max(1, n)) return blas_bad;
  check_matrix("cublasSsyrk", "A", a, rows, op == CUBLAS_OP_N ? k : n, lda);
  check_matrix("cublasSsyrk", "C", c, n, n, ldc);
  auto const call = [=, half = letter(uplo), t = letter(op), x = *alpha, y = *beta] {
    dovetail_ssyrk(&half, &t, &n, &k, &x, a, &lda, &y, c, &ldc, 1, 1);
  };
  emulated::require_current("a cuBLAS handle", h->device);
  return emulated::queue(h->stream, call) == cudaSuccess ? blas_ok : CUBLAS_STATUS_EXECUTION_FAILED;
}

// ---- cuSOLVER

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* h) {
  if (emulated::refuse_in_capture() != cudaSuccess) return CUSOLVER_STATUS_NOT_INITIALIZED;
  *h = new cusolverDnContext;
  return ok;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t h) {
  emulated::require_current("a cuSOLVER handle", h->device);
  delete h;
  return ok;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t s) {
  h->stream = s;
  return ok;
}
cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t, cusolverDeterministicMode_t) { return ok; }

// The sizes differ from call to call, as cuSOLVER's do: a room of another call's size is found.
cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, double*, int, int* size) {
  return size_is(n, size);
}
cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t h, cublasFillMode_t uplo, int n, double* a, int lda, double* work,
                                  int size, int* info) {
  if (refuses("cusolverDnDpotrf", n, n, a, lda, work, size, n, info)) return bad;
  return queued(h, work, size, [=, half = letter(uplo)] { dovetail_dpotrf(&half, &n, a, &lda, info, 1); });
}
cusolverStatus_t cusolverDnDpotri_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, double*, int, int* size) {
  return size_is(2 * n, size);
}
cusolverStatus_t cusolverDnDpotri(cusolverDnHandle_t h, cublasFillMode_t uplo, int n, double* a, int lda, double* work,
                                  int size, int* info) {
  if (refuses("cusolverDnDpotri", n, n, a, lda, work, size, 2 * n, info)) return bad;
  return queued(h, work, size, [=, half = letter(uplo)] { dovetail_dpotri(&half, &n, a, &lda, info, 1); });
}
cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t, int, int n, double*, int, int* size) {
  return size_is(3 * n, size);
}
cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t h, int m, int n, double* a, int lda, double* tau, double* work,
                                  int size, int* info) {
  if (refuses("cusolverDnDgeqrf", m, n, a, lda, work, size, 3 * n, info)) return bad;
  check_array("cusolverDnDgeqrf", "tau", tau, std::min(m, n));
  return queued(h, work, size, [=] { dovetail_dgeqrf(&m, &n, a, &lda, tau, work, &size, info); });
}
cusolverStatus_t cusolverDnDorgqr_bufferSize(cusolverDnHandle_t, int, int n, int, double const*, int, double const*,
                                             int* size) {
  return size_is(4 * n, size);
}
cusolverStatus_t cusolverDnDorgqr(cusolverDnHandle_t h, int m, int n, int k, double* a, int lda, double const* tau,
                                  double* work, int size, int* info) {
  if (refuses("cusolverDnDorgqr", m, n, a, lda, work, size, 4 * n, info)) return bad;
  check_array("cusolverDnDorgqr", "tau", tau, k);
  return queued(h, work, size, [=] { dovetail_dorgqr(&m, &n, &k, a, &lda, tau, work, &size, info); });
}
cusolverStatus_t cusolverDnDsyevd_bufferSize(cusolverDnHandle_t, cusolverEigMode_t, cublasFillMode_t, int n,
                                             double const*, int, double const*, int* size) {
  return size_is(1 + 6 * n + 2 * n * n, size);  // the least that LAPACK takes for vectors
}
cusolverStatus_t cusolverDnDsyevd(cusolverDnHandle_t h, cusolverEigMode_t mode, cublasFillMode_t uplo, int n, double* a,
                                  int lda, double* values, double* work, int size, int* info) {
  if (refuses("cusolverDnDsyevd", n, n, a, lda, work, size, 1 + 6 * n + 2 * n * n, info)) return bad;
  check_array("cusolverDnDsyevd", "the eigenvalues", values, n);
  char const job = mode == CUSOLVER_EIG_MODE_VECTOR ? 'V' : 'N';
  return queued(h, work, size, [=, half = letter(uplo)] {
    std::vector<int> indices(static_cast<size_t>(3 + 5 * n));
    int const count = 3 + 5 * n;
    dovetail_dsyevd(&job, &half, &n, a, &lda, values, work, &size, indices.data(), &count, info, 1, 1);
  });
}
