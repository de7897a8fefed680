// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: spectral_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of
// its own. In double, where a product of two floats is exact. Nothing rounds differently from level to level: other
// products are rounded before they are added, and sums have 8 interleaved lanes.
#if defined(DOVETAIL_KERNEL_LANES)

constexpr int doubles = lanes / 2;  // in a register
constexpr int parts = 8 / doubles;
typedef float half_register __attribute__((vector_size(2 * lanes)));

// Hidden, because a level with fused multiply-adds would differ from others.
template <class Number>
DOVETAIL_HOST_INLINE Number whole_product(Number a, Number b) {
  return hidden(a * b);
}
DOVETAIL_HOST_INLINE f64s widened_floats(float const* x) {
  return __builtin_convertvector(load<half_register>(x), f64s);
}
DOVETAIL_HOST_INLINE double total_of(f64s const* sums) {
  double s[8];
  DOVETAIL_UNROLL_4
  for (int p = 0; p < parts; ++p) store(s + p * doubles, sums[p]);
  for (int half = 4; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  return s[0];
}

// to[k] = x · y[k] for `count` rows, which is at most 4 and known where this is inlined.
DOVETAIL_HOST_INLINE void dots(float const* x, float const* y, std::size_t n, std::size_t count, double* to) {
  f64s sums[4][parts] = {};
  std::size_t j = 0;
  for (; j + 8 <= n; j += 8) {
    DOVETAIL_UNROLL_4
    for (int p = 0; p < parts; ++p) {
      std::size_t const at = j + static_cast<std::size_t>(p * doubles);
      f64s const v = widened_floats(x + at);
      DOVETAIL_UNROLL_4
      for (std::size_t k = 0; k < count; ++k) sums[k][p] += v * widened_floats(y + k * n + at);
    }
  }
  if (j < n) {
    float padded[8] = {};
    __builtin_memcpy(padded, x + j, (n - j) * sizeof(float));
    for (std::size_t k = 0; k < count; ++k) {
      float factors[8] = {};
      __builtin_memcpy(factors, y + k * n + j, (n - j) * sizeof(float));
      for (int p = 0; p < parts; ++p)
        sums[k][p] += widened_floats(padded + p * doubles) * widened_floats(factors + p * doubles);
    }
  }
  for (std::size_t k = 0; k < count; ++k) to[k] = total_of(sums[k]);
}

// The lower triangle of g = x xᵀ. As many rows of x at a time as stay in the second cache.
inline void gram(float const* x, std::size_t m, std::size_t n, double* g) {
  std::size_t const few = 4 * (65536 / (4 * n + 4) + 1);
  for (std::size_t first = 0; first < m; first += few) {
    std::size_t const last = m - first < few ? m : first + few;
    for (std::size_t i = first; i < m; ++i) {
      std::size_t const end = i + 1 < last ? i + 1 : last;
      std::size_t j = first;
      for (; j + 4 <= end; j += 4) dots(x + i * n, x + j * n, n, 4, g + i * m + j);
      for (; j < end; ++j) dots(x + i * n, x + j * n, n, 1, g + i * m + j);
    }
  }
}

// y = a x for a symmetric matrix of order n, of which the lower triangle is read. Rows have `stride` doubles.
inline void multiply(double const* a, std::size_t stride, std::size_t n, double const* x, double* y) {
  for (std::size_t i = 0; i < n; ++i) {
    double const* const row = a + i * stride;
    f64s const factor = f64s{} + x[i];
    f64s sums[parts] = {};
    std::size_t j = 0;
    for (; j + 8 <= i; j += 8) {
      DOVETAIL_UNROLL_4
      for (int p = 0; p < parts; ++p) {
        std::size_t const at = j + static_cast<std::size_t>(p * doubles);
        f64s const v = load<f64s>(row + at);
        sums[p] += whole_product(v, load<f64s>(x + at));
        store(y + at, load<f64s>(y + at) + whole_product(factor, v));
      }
    }
    double rest = 0;
    for (; j < i; ++j) {
      rest += whole_product(row[j], x[j]);
      y[j] += whole_product(x[i], row[j]);
    }
    y[i] = (total_of(sums) + rest) + whole_product(row[i], x[i]);
  }
}

// a -= v qᵀ + q vᵀ, of which the lower triangle is written.
inline void subtract_products(double* a, std::size_t stride, std::size_t n, double const* v, double const* q) {
  for (std::size_t i = 0; i < n; ++i) {
    double* const row = a + i * stride;
    f64s const of_q = f64s{} + v[i], of_v = f64s{} + q[i];
    std::size_t j = 0;
    constexpr auto step = static_cast<std::size_t>(doubles);
    for (; j + step <= i + 1; j += step)
      store(row + j,
            load<f64s>(row + j) - (whole_product(of_q, load<f64s>(q + j)) + whole_product(of_v, load<f64s>(v + j))));
    for (; j <= i; ++j) row[j] -= whole_product(v[i], q[j]) + whole_product(q[i], v[j]);
  }
}

#endif
