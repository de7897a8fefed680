// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/matrix_kernels.cuh>
#include <dovetail/optim/matrix/lapack.hpp>

// optim/matrix/algebra.hpp in a device's memory, by cuBLAS and cuSOLVER: CMake's dovetail::cuda_matrix. Include it to
// run optimizers that precondition matrices. Calls are those of optim/matrix/lapack.hpp, letter by letter: the
// libraries see row-major matrices as their transposes, as BLAS and LAPACK do.

namespace dovetail::cuda {

/// A call of cuBLAS or cuSOLVER failed.
struct library_error : error {
  library_error(char const* library, char const* what, int status, char const* name)
      : error(message(library, ": ", what, " failed with status ", status, name)), status(status) {}
  int status;
};
inline void check(cublasStatus_t status, char const* what) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    throw library_error("cuBLAS", what, static_cast<int>(status),
                        message(" (", cublasGetStatusName(status), ')').c_str());
}
inline void check(cusolverStatus_t status, char const* what) {
  if (status != CUSOLVER_STATUS_SUCCESS) [[unlikely]]
    throw library_error("cuSOLVER", what, static_cast<int>(status), "");
}

}  // namespace dovetail::cuda

namespace dovetail::optim::cuda {

namespace detail {

/// The libraries' handles, bound to a state's stream, and their memory. Made by the first stage that needs them.
class matrix_handles {
 public:
  /// What cuBLAS may use, in bytes: its own choice on recent devices, but the same in every run, graphs included.
  static constexpr std::size_t blas_room = std::size_t{32} << 20;

  explicit matrix_handles(dovetail::cuda::device const& d)
      : room_(blas_room, d), blas_(nullptr, destroy{d.index}), solver_(nullptr, destroy{d.index}), info(1, d) {
    using dovetail::cuda::check;
    auto const here = d.use();
    cublasHandle_t b{};
    check(cublasCreate(&b), "cublasCreate");
    blas_.reset(b);
    cusolverDnHandle_t s{};
    check(cusolverDnCreate(&s), "cusolverDnCreate");
    solver_.reset(s);
    check(cublasSetStream(b, d.stream), "cublasSetStream");
    check(cublasSetWorkspace(b, room_.data(), blas_room), "cublasSetWorkspace");
    check(cusolverDnSetStream(s, d.stream), "cusolverDnSetStream");
    check(cusolverDnSetDeterministicMode(s, CUSOLVER_DETERMINISTIC_RESULTS), "cusolverDnSetDeterministicMode");
  }
  cublasHandle_t blas() const { return blas_.get(); }
  cusolverDnHandle_t solver() const { return solver_.get(); }

 private:
  struct destroy {
    int device;
    // An error here is an earlier kernel's, reported elsewhere.
    void operator()(cublasHandle_t h) const {
      dovetail::cuda::current_device const here(device, std::nothrow);
      static_cast<void>(cublasDestroy(h));
    }
    void operator()(cusolverDnHandle_t h) const {
      dovetail::cuda::current_device const here(device, std::nothrow);
      static_cast<void>(cusolverDnDestroy(h));
    }
  };
  dovetail::cuda::device_buffer<std::byte> room_;
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, destroy> blas_;
  std::unique_ptr<std::remove_pointer_t<cusolverDnHandle_t>, destroy> solver_;

 public:
  dovetail::cuda::device_buffer<int> info;
  dovetail::cuda::device_buffer<double> matrix, values, work;  ///< of a decomposition
  dovetail::cuda::device_buffer<float> left, right;            ///< of a power
};

}  // namespace detail

/// Matrices in a device's memory.
class matrices {
 public:
  using span = algebra::span;
  using const_span = algebra::const_span;
  using as = lapack::as;

  explicit matrices(algebra const& a) : algebra_(&a) {
    auto& kept = a.memory().matrices;
    if (!kept) {
      require(!a.device().capturing(),
              "optim::cuda: this step makes handles of cuBLAS, which cannot be done while a graph is captured: do one "
              "step before");
      kept = std::make_shared<detail::matrix_handles>(a.device());
    }
    own_ = static_cast<detail::matrix_handles*>(kept.get());
  }

  void multiply(as op_a, as op_b, std::size_t m, std::size_t n, std::size_t k, float alpha, const_span a,
                std::size_t stride_a, const_span b, std::size_t stride_b, float beta, span c,
                std::size_t stride_c) const {
    if (m == 0 || n == 0) return;
    dovetail::cuda::check(
        cublasSgemm(own_->blas(), operation(op_b), operation(op_a), to_int(n), to_int(m), to_int(k), &alpha,
                    b.address(), to_int(stride_b), a.address(), to_int(stride_a), &beta, c.address(), to_int(stride_c)),
        "cublasSgemm");
  }
  void gram(as op, std::size_t n, std::size_t k, float alpha, const_span a, std::size_t stride, float beta,
            span c) const {
    if (n == 0) return;
    auto const t = op == as::it_is ? CUBLAS_OP_T : CUBLAS_OP_N;
    dovetail::cuda::check(cublasSsyrk(own_->blas(), CUBLAS_FILL_MODE_LOWER, t, to_int(n), to_int(k), &alpha,
                                      a.address(), to_int(stride), &beta, c.address(), to_int(n)),
                          "cublasSsyrk");
    launch(n * n, "a matrix's other half", detail::mirror<float>, c.address(), n);
  }
  void power(const_span a, std::size_t n, double exponent, double ridge, span out) const {
    if (n == 0) return;
    decompose(a, n);
    std::size_t const size = n * n;
    float* const left = detail::grown(own_->left, size, device());
    float* const right = detail::grown(own_->right, size, device());
    launch(size, "a matrix's power", detail::scale_vectors<float>, own_->matrix.data(), own_->values.data(), n,
           exponent, ridge, left, right);
    multiply(as::transposed, as::it_is, n, n, n, 1, {left, size}, n, {right, size}, n, 0, out, n);
  }
  void inverse(const_span a, std::size_t n, double ridge, span out) const {
    if (n == 0) return;
    double* const x = load(a, n, ridge, false);
    int const order = to_int(n);
    int first = 0, second = 0;
    auto const lower = CUBLAS_FILL_MODE_LOWER;
    using dovetail::cuda::check;
    check(cusolverDnDpotrf_bufferSize(own_->solver(), lower, order, x, order, &first), "cusolverDnDpotrf_bufferSize");
    check(cusolverDnDpotri_bufferSize(own_->solver(), lower, order, x, order, &second), "cusolverDnDpotri_bufferSize");
    int const size = std::max(first, second);
    double* const work = room(size);
    check(cusolverDnDpotrf(own_->solver(), lower, order, x, order, work, size, own_->info.data()), "cusolverDnDpotrf");
    check_info("a Cholesky decomposition", n);
    check(cusolverDnDpotri(own_->solver(), lower, order, x, order, work, size, own_->info.data()), "cusolverDnDpotri");
    check_info("an inverse", n);
    launch(n * n, "an inverse", detail::store_symmetric<float>, x, n, out.address());
  }
  void eigen(const_span a, std::size_t n, span vectors, span values) const {
    if (n == 0) return;
    decompose(a, n);
    launch(n * n, "eigenvectors", detail::store_eigen<float>, own_->matrix.data(), own_->values.data(), n,
           vectors.address(), values.address());
  }
  void eigenbasis(const_span a, std::size_t n, span basis) const {
    if (n == 0) return;
    decompose(a, n);
    launch(n * n, "eigenvectors", detail::store_basis<float>, own_->matrix.data(), n, basis.address());
  }
  void orthogonal_factor(const_span a, std::size_t n, span q) const {
    if (n == 0) return;
    double* const x = load(a, n, 0, true);
    double* const tau = detail::grown(own_->values, 2 * n, device());
    double* const sign = tau + n;
    int const order = to_int(n);
    int first = 0, second = 0;
    using dovetail::cuda::check;
    check(cusolverDnDgeqrf_bufferSize(own_->solver(), order, order, x, order, &first), "cusolverDnDgeqrf_bufferSize");
    check(cusolverDnDorgqr_bufferSize(own_->solver(), order, order, order, x, order, tau, &second),
          "cusolverDnDorgqr_bufferSize");
    int const size = std::max(first, second);
    double* const work = room(size);
    check(cusolverDnDgeqrf(own_->solver(), order, order, x, order, tau, work, size, own_->info.data()),
          "cusolverDnDgeqrf");
    check_info("a QR decomposition", n);
    launch(n, "a QR decomposition", detail::diagonal_signs<double>, x, n, sign);
    check(cusolverDnDorgqr(own_->solver(), order, order, order, x, order, tau, work, size, own_->info.data()),
          "cusolverDnDorgqr");
    check_info("the orthogonal factor", n);
    launch(n * n, "the orthogonal factor", detail::store_factor<float>, x, sign, n, q.address());
  }
  void copy(std::size_t rows, std::size_t columns, const_span from, std::size_t from_stride, span to,
            std::size_t to_stride) const {
    if (rows == 0 || columns == 0) return;
    dovetail::cuda::check(
        cudaMemcpy2DAsync(to.address(), to_stride * sizeof(float), from.address(), from_stride * sizeof(float),
                          columns * sizeof(float), rows, cudaMemcpyDeviceToDevice, device().stream),
        "a copy of a matrix");
  }
  void fill(std::size_t rows, std::size_t columns, float value, span to, std::size_t stride) const {
    if (rows == 0 || columns == 0) return;
    launch(rows * columns, "the filling of a matrix", detail::fill_matrix<float>, to.address(), rows, columns, stride,
           value);
  }
  algebra::number trace(const_span a, std::size_t n) const {
    double* const to = algebra_->next_number();
    algebra_->launch("a trace", 1, detail::sum_partials<float>, a.address(), n, n + 1, to);
    return {to};
  }

 private:
  static cublasOperation_t operation(as op) { return op == as::it_is ? CUBLAS_OP_N : CUBLAS_OP_T; }
  static int to_int(std::size_t n) {
    require(n <= static_cast<std::size_t>(std::numeric_limits<int>::max()), "optim::cuda: a dimension of ", n,
            " is beyond what cuBLAS takes");
    return static_cast<int>(n);
  }
  dovetail::cuda::device const& device() const { return algebra_->device(); }
  /// Queues a kernel for n elements.
  template <class Kernel, class... Arguments>
  void launch(std::size_t n, char const* what, Kernel* kernel, Arguments const&... arguments) const {
    algebra_->launch(what, detail::blocks_of(n), kernel, arguments...);
  }
  double* room(int n) const { return detail::grown(own_->work, static_cast<std::size_t>(std::max(1, n)), device()); }
  /// A + ridge I in double precision, as it is or transposed.
  double* load(const_span a, std::size_t n, double ridge, bool transposed) const {
    require(a.size() == n * n, "optim::cuda: ", a.size(), " elements for a matrix of order ", n);
    double* const x = detail::grown(own_->matrix, n * n, device());
    launch(n * n, "a matrix in double precision", detail::load_matrix<float>, a.address(), n, ridge, transposed, x);
    return x;
  }
  /// The eigenvectors of A as rows of own_->matrix, its eigenvalues, ascending, in own_->values.
  void decompose(const_span a, std::size_t n) const {
    double* const x = load(a, n, 0, false);
    double* const values = detail::grown(own_->values, n, device());
    int const order = to_int(n);
    int size = 0;
    auto const job = CUSOLVER_EIG_MODE_VECTOR;
    auto const upper = CUBLAS_FILL_MODE_UPPER;
    using dovetail::cuda::check;
    check(cusolverDnDsyevd_bufferSize(own_->solver(), job, upper, order, x, order, values, &size),
          "cusolverDnDsyevd_bufferSize");
    double* const work = room(size);
    check(cusolverDnDsyevd(own_->solver(), job, upper, order, x, order, values, work, size, own_->info.data()),
          "cusolverDnDsyevd");
    check_info("an eigenvalue problem", n);
  }
  /// Waits for the decomposition.
  void check_info(char const* what, std::size_t n) const {
    int info = 0;
    own_->info.download(device(), {&info, 1});
    require<numeric_error>(info == 0, "optim::cuda: ", what, " of order ", n, " failed with info ", info,
                           ": the matrix holds numbers that are not finite, or the iteration did not converge");
  }

  algebra const* algebra_;
  detail::matrix_handles* own_;
};

inline matrices matrices_of(algebra const& a) { return matrices(a); }

}  // namespace dovetail::optim::cuda
