// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <cub/block/block_reduce.cuh>

#include <dovetail/optim/linalg/remote_span.hpp>

// The kernels behind cuda/algebra.cuh. All sums are added up in one order, whatever the device, in double precision.

namespace dovetail::optim::cuda::detail {

inline constexpr int threads = 256;
/// Elements of one partial sum.
inline constexpr std::size_t sum_piece = 16384;
/// Columns of a block that folds them, and parts that rows are taken in.
inline constexpr unsigned fold_width = 32, fold_height = 32;

/// Blocks for n things, one each; what is beyond that many, the same blocks do.
inline unsigned grid(std::size_t n) { return static_cast<unsigned>(std::min(n, std::size_t{1} << 30)); }
/// Blocks for n elements.
inline unsigned blocks_of(std::size_t n) {
  return static_cast<unsigned>(std::min((n + threads - 1) / threads, std::size_t{1} << 16));
}

/// A number in double precision in device memory.
struct device_number {
  double const* at = nullptr;
  __device__ double value() const { return *at; }
};

struct constant {
  float value;
  DOVETAIL_HD float operator()() const { return value; }
};
struct larger_of {
  __device__ float operator()(float a, float b) const { return a < b ? b : a; }
};

// ---- elements

template <class F, class... In>
__global__ __launch_bounds__(threads) void map_elements(F f, std::size_t n, float* out, In const*... in) {
  std::size_t const stride = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < n; i += stride) out[i] = f(in[i]...);
}
template <class F>
__global__ __launch_bounds__(threads) void map_fours(F f, std::size_t n, float* x) {
  std::size_t const fours = (n + 3) / 4, stride = std::size_t{gridDim.x} * threads;
  for (std::size_t b = std::size_t{blockIdx.x} * threads + threadIdx.x; b < fours; b += stride)
    f(static_cast<std::uint32_t>(b), x + 4 * b, n - 4 * b < 4 ? n - 4 * b : 4);
}
template <class F, class... Numbers>
__global__ __launch_bounds__(threads) void scale_elements(F f, std::size_t n, float* x, Numbers... numbers) {
  double const exact = f(numbers.value()...);
  if (exact == 1) return;
  auto const factor = static_cast<float>(exact);
  std::size_t const stride = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < n; i += stride) x[i] = factor * x[i];
}

// ---- sums

/// partials[p] <- the sum (of squares) of piece p.
template <bool Squares>
__global__ __launch_bounds__(threads) void sum_pieces(float const* x, std::size_t n, std::size_t pieces,
                                                      double* partials) {
  using reduce = cub::BlockReduce<double, threads>;
  __shared__ typename reduce::TempStorage room;
  for (std::size_t p = blockIdx.x; p < pieces; p += gridDim.x) {
    std::size_t const begin = p * sum_piece, end = n - begin < sum_piece ? n : begin + sum_piece;
    double s = 0;
    for (std::size_t i = begin + threadIdx.x; i < end; i += threads) {
      auto const e = static_cast<double>(x[i]);
      s += Squares ? e * e : e;
    }
    double const total = reduce(room).Sum(s);
    if (threadIdx.x == 0) partials[p] = total;
    __syncthreads();  // the room is used again
  }
}
/// One block: to <- the sum of x[stride i], i < n. A template so that every program may have its own copy of it.
template <class T>
__global__ __launch_bounds__(threads) void sum_partials(T const* x, std::size_t n, std::size_t stride, double* to) {
  using reduce = cub::BlockReduce<double, threads>;
  __shared__ typename reduce::TempStorage room;
  double s = 0;
  for (std::size_t i = threadIdx.x; i < n; i += threads) s += static_cast<double>(x[stride * i]);
  double const total = reduce(room).Sum(s);
  if (threadIdx.x == 0) *to = total;
}

// ---- rows and columns

/// Row `index`, worked on by one block. All its threads run the row function together: what that decides depends on
/// sums, rows' numbers and constants, so that all decide the same.
struct device_row {
  std::size_t index, columns;

  template <class T>
  __device__ T* of(remote_span<T> x) const {
    return x.address() + index * columns;
  }
  template <class T>
  __device__ static T* all(remote_span<T> x) {
    return x.address();
  }
  template <class T>
  __device__ float get(remote_span<T> per_row) const {
    return per_row.address()[index];
  }
  __device__ void set(remote_span<float> per_row, float x) const {
    __syncthreads();  // others may still want the old one
    if (threadIdx.x == 0) per_row.address()[index] = x;
  }
  __device__ static double value(device_number x) { return x.value(); }

  __device__ double sum(float const* x) const {
    double s = 0;
    for (std::size_t i = threadIdx.x; i < columns; i += threads) s += static_cast<double>(x[i]);
    return total(s);
  }
  __device__ double sum_of_squares(float const* x) const {
    double s = 0;
    for (std::size_t i = threadIdx.x; i < columns; i += threads)
      s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return total(s);
  }
  __device__ void scale(float* x, double factor) const {
    auto const f = static_cast<float>(factor);
    for (std::size_t i = threadIdx.x; i < columns; i += threads) x[i] = f * x[i];
  }
  // Each thread has the same elements in every loop: what it wrote it reads again without waiting for others.
  template <class F, class... In>
  __device__ void map(float* out, F const& f, In const*... in) const {
    for (std::size_t i = threadIdx.x; i < columns; i += threads) out[i] = f(in[i]...);
  }
  template <class F, class... In>
  __device__ float largest(F const& f, In const*... in) const {
    float most = 0;
    for (std::size_t i = threadIdx.x; i < columns; i += threads) most = larger_of{}(most, f(in[i]...));
    using reduce = cub::BlockReduce<float, threads>;
    __shared__ typename reduce::TempStorage room;
    __shared__ float result;
    float const all = reduce(room).Reduce(most, larger_of{});
    return everywhere(all, result);
  }

 private:
  __device__ static double total(double s) {
    using reduce = cub::BlockReduce<double, threads>;
    __shared__ typename reduce::TempStorage room;
    __shared__ double result;
    double const all = reduce(room).Sum(s);
    return everywhere(all, result);
  }
  /// Thread 0's x, for all threads.
  template <class T>
  __device__ static T everywhere(T x, T& shared) {
    if (threadIdx.x == 0) shared = x;
    __syncthreads();
    T const result = shared;
    __syncthreads();  // it is used again
    return result;
  }
};

template <class F>
__global__ __launch_bounds__(threads) void map_rows(F f, std::size_t rows, std::size_t columns) {
  for (std::size_t r = blockIdx.x; r < rows; r += gridDim.x) f(device_row{r, columns});
}

/// A block of fold_width columns by fold_height parts of all rows, whose results are combined in order.
template <class Fold>
__global__ __launch_bounds__(fold_width* fold_height) void fold_tall(Fold fold, std::size_t rows, std::size_t columns,
                                                                     float* totals, float const* x,
                                                                     float const* per_row, float const* per_column) {
  __shared__ float part[fold_height][fold_width];
  std::size_t const stride = std::size_t{gridDim.x} * fold_width;
  for (std::size_t first = std::size_t{blockIdx.x} * fold_width; first < columns; first += stride) {
    std::size_t const c = first + threadIdx.x, begin = rows * threadIdx.y / fold_height,
                      end = rows * (threadIdx.y + 1) / fold_height;
    float total = 0;
    if (c < columns) {
      float const own = per_column[c];
      for (std::size_t r = begin; r < end; ++r) total = fold(total, x[r * columns + c], per_row[r], own);
    }
    part[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && c < columns) {
      float all = totals[c];
      for (unsigned k = 0; k < fold_height; ++k) all = fold.combine(all, part[k][threadIdx.x]);
      totals[c] = all;
    }
    __syncthreads();  // the parts are written again
  }
}

}  // namespace dovetail::optim::cuda::detail
