// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/optim/cuda/algebra_kernels.cuh>

// What is done to matrices {n, n} before and behind the libraries' calls: conversions, transposes, signs. Templates, so
// that every program may have its own copy.

namespace dovetail::optim::cuda::detail {

/// f(row, column, index) for all elements.
template <class F>
__device__ __forceinline__ void each_element(std::size_t rows, std::size_t columns, F const& f) {
  std::size_t const n = rows * columns, stride = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < n; i += stride)
    f(i / columns, i % columns, i);
}

/// The lower half of a row-major matrix from its upper one.
template <class T>
__global__ void mirror(T* a, std::size_t n) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    if (i > j) a[at] = a[j * n + i];
  });
}
template <class T>
__global__ void load_matrix(T const* a, std::size_t n, double ridge, bool transposed, double* to) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    to[at] = static_cast<double>(transposed ? a[j * n + i] : a[at]) + (i == j ? ridge : 0);
  });
}
/// left <- f(values) V, right <- V for eigenvectors V as rows, with f(x) = (max(x, 0) + ridge max(largest,
/// tiny))^power.
template <class T>
__global__ void scale_vectors(double const* vectors, double const* values, std::size_t n, double power, double ridge,
                              T* left, T* right) {
  double const last = values[n - 1], largest = last > 1e-30 ? last : 1e-30;
  each_element(n, n, [=](std::size_t i, std::size_t, std::size_t at) {
    double const x = values[i] > 0 ? values[i] : 0;
    left[at] = static_cast<T>(pow(x + ridge * largest, power) * vectors[at]);
    right[at] = static_cast<T>(vectors[at]);
  });
}
/// Eigenvectors as rows, eigenvalues that are not below 0.
template <class T>
__global__ void store_eigen(double const* vectors, double const* values, std::size_t n, T* to, T* to_values) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    to[at] = static_cast<T>(vectors[at]);
    if (j == 0) to_values[i] = static_cast<T>(values[i] > 0 ? values[i] : 0);
  });
}
/// Eigenvectors as columns, the last one first.
template <class T>
__global__ void store_basis(double const* vectors, std::size_t n, T* to) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    to[at] = static_cast<T>(vectors[(n - 1 - j) * n + i]);
  });
}
/// A symmetric matrix from its row-major upper half.
template <class T>
__global__ void store_symmetric(double const* a, std::size_t n, T* to) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    to[at] = static_cast<T>(i <= j ? a[at] : a[j * n + i]);
  });
}
/// -1 where the diagonal is negative, else 1.
template <class T>
__global__ void diagonal_signs(T const* a, std::size_t n, T* sign) {
  each_element(n, 1, [=](std::size_t i, std::size_t, std::size_t) { sign[i] = a[i * n + i] < 0 ? -1 : 1; });
}
/// Row-major Q from its columns, each with its sign.
template <class T>
__global__ void store_factor(double const* columns, double const* sign, std::size_t n, T* to) {
  each_element(n, n, [=](std::size_t i, std::size_t j, std::size_t at) {
    to[at] = static_cast<T>(sign[j] * columns[j * n + i]);
  });
}
template <class T>
__global__ void fill_matrix(T* to, std::size_t rows, std::size_t columns, std::size_t stride, T value) {
  each_element(rows, columns, [=](std::size_t i, std::size_t j, std::size_t) { to[i * stride + j] = value; });
}

}  // namespace dovetail::optim::cuda::detail
