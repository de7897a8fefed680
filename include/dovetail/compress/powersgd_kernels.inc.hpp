// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: powersgd_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of
// its own. A matrix is m rows of n floats; its factors are columns, one behind the other: r of m floats, and r of n.
// Nothing rounds differently from level to level: products are rounded before they are added, sums over a row have 16
// lanes, and sums over rows are made row by row.
#if defined(DOVETAIL_KERNEL_LANES)

// Columns that are worked out together, each in its own register.
constexpr std::size_t together = 4;
constexpr int parts = 16 / lanes;

// Hidden, because a level with fused multiply-adds would differ from others.
DOVETAIL_HOST_INLINE f32s factor_product(f32s a, f32s b) { return hidden(a * b); }

// Of `count` columns of q, which is at most `together` and known where this is inlined: total[k] = x · q[k]. With
// `forms` x is gradient + residual, and is written. Each sum has 16 interleaved fp32 sums over at most 4096 elements,
// then double.
DOVETAIL_HOST_INLINE void project_row(float const* gradient, float const* residual, float* x, bool forms, std::size_t n,
                                      float const* q, std::size_t count, double* total) {
  for (std::size_t k = 0; k < count; ++k) total[k] = 0;
  for (std::size_t begin = 0; begin < n; begin += 4096) {
    std::size_t const end = n - begin < 4096 ? n : begin + 4096;
    f32s sum[together][parts] = {};
    std::size_t j = begin;
    for (; j + 16 <= end; j += 16) {
      if (forms) {
        __builtin_prefetch(reinterpret_cast<char const*>(gradient + j) + 8192);
        __builtin_prefetch(reinterpret_cast<char const*>(residual + j) + 8192);
        __builtin_prefetch(reinterpret_cast<char*>(x + j) + 1024, 1);
      }
      DOVETAIL_UNROLL_4
      for (int p = 0; p < parts; ++p) {
        std::size_t const at = j + static_cast<std::size_t>(p) * lanes;
        f32s const v = forms ? load(residual + at) + load(gradient + at) : load(x + at);
        if (forms) store(x + at, v);
        DOVETAIL_UNROLL_4
        for (std::size_t k = 0; k < count; ++k) sum[k][p] += factor_product(v, load(q + k * n + at));
      }
    }
    if (j < end) {
      float padded[16] = {};
      for (std::size_t i = j; i < end; ++i) {
        if (forms) x[i] = residual[i] + gradient[i];
        padded[i - j] = x[i];
      }
      for (std::size_t k = 0; k < count; ++k) {
        float factors[16] = {};
        __builtin_memcpy(factors, q + k * n + j, (end - j) * sizeof(float));
        for (int p = 0; p < parts; ++p)
          sum[k][p] += factor_product(load(padded + p * lanes), load(factors + p * lanes));
      }
    }
    DOVETAIL_UNROLL_4
    for (std::size_t k = 0; k < count; ++k) {
      float s[16];
      DOVETAIL_UNROLL_4
      for (int p = 0; p < parts; ++p) store(s + p * lanes, sum[k][p]);
      for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) s[i] += s[i + half];
      total[k] += static_cast<double>(s[0]);
    }
  }
}

// p = x q, x = gradient + residual, which is written.
inline void project(float const* gradient, float const* residual, float* x, std::size_t m, std::size_t n,
                    float const* q, std::size_t r, float* p) {
  double total[together];
  for (std::size_t i = 0; i < m; ++i) {
    std::size_t const at = i * n;
    std::size_t k = 0;
    if (r >= together) {
      project_row(gradient + at, residual + at, x + at, true, n, q, together, total);
      for (; k < together; ++k) p[k * m + i] = static_cast<float>(total[k]);
    } else {
      project_row(gradient + at, residual + at, x + at, true, n, q, 1, total);
      p[i] = static_cast<float>(total[0]);
      k = 1;
    }
    for (; k + together <= r; k += together) {
      project_row(nullptr, nullptr, x + at, false, n, q + k * n, together, total);
      for (std::size_t l = 0; l < together; ++l) p[(k + l) * m + i] = static_cast<float>(total[l]);
    }
    for (; k < r; ++k) {
      project_row(nullptr, nullptr, x + at, false, n, q + k * n, 1, total);
      p[k * m + i] = static_cast<float>(total[0]);
    }
  }
}

// q[k] += rows · p[k], for `count` columns and `rows` rows, both at most 4 and known where this is inlined.
DOVETAIL_HOST_INLINE void add_rows(float const* x, std::size_t n, std::size_t length, std::size_t rows, float const* p,
                                   std::size_t m, float* q, std::size_t count) {
  f32s weight[together][4];
  DOVETAIL_UNROLL_4
  for (std::size_t k = 0; k < count; ++k) DOVETAIL_UNROLL_4
  for (std::size_t i = 0; i < rows; ++i) weight[k][i] = f32s{} + p[k * m + i];
  std::size_t j = 0;
  for (; j + lanes <= length; j += lanes) {
    f32s v[4];
    DOVETAIL_UNROLL_4
    for (std::size_t i = 0; i < rows; ++i) {
      __builtin_prefetch(x + (i + rows) * n + j);
      v[i] = load(x + i * n + j);
    }
    DOVETAIL_UNROLL_4
    for (std::size_t k = 0; k < count; ++k) {
      f32s sum = load(q + k * n + j);
      DOVETAIL_UNROLL_4
      for (std::size_t i = 0; i < rows; ++i) sum += factor_product(weight[k][i], v[i]);
      store(q + k * n + j, sum);
    }
  }
  if (j == length) return;
  for (std::size_t k = 0; k < count; ++k) {
    f32s sum = load_part(q + k * n + j, length - j);
    for (std::size_t i = 0; i < rows; ++i) sum += factor_product(weight[k][i], load_part(x + i * n + j, length - j));
    store_part(q + k * n + j, length - j, sum);
  }
}

// q = xᵀ p. As many columns of x at a time as leave their sums in the first cache.
inline void project_back(float const* x, std::size_t m, std::size_t n, float const* p, std::size_t r, float* q) {
  __builtin_memset(q, 0, r * n * sizeof(float));
  for (std::size_t begin = 0; begin < n; begin += 2048) {
    std::size_t const length = n - begin < 2048 ? n - begin : 2048;
    std::size_t i = 0;
    for (; i + 4 <= m; i += 4) {
      std::size_t k = 0;
      for (; k + together <= r; k += together)
        add_rows(x + i * n + begin, n, length, 4, p + k * m + i, m, q + k * n + begin, together);
      for (; k < r; ++k) add_rows(x + i * n + begin, n, length, 4, p + k * m + i, m, q + k * n + begin, 1);
    }
    for (; i < m; ++i)
      for (std::size_t k = 0; k < r; ++k)
        add_rows(x + i * n + begin, n, length, 1, p + k * m + i, m, q + k * n + begin, 1);
  }
}

DOVETAIL_HOST_INLINE void add_product_row(float const* p, std::size_t m, float const* q, std::size_t n,
                                          std::size_t count, float weight, float* out) {
  f32s factor[together];
  DOVETAIL_UNROLL_4
  for (std::size_t k = 0; k < count; ++k) factor[k] = f32s{} + p[k * m];
  f32s const w = f32s{} + weight;
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    __builtin_prefetch(reinterpret_cast<char const*>(out + j) + 8192);
    f32s sum = factor_product(factor[0], load(q + j));
    DOVETAIL_UNROLL_4
    for (std::size_t k = 1; k < count; ++k) sum += factor_product(factor[k], load(q + k * n + j));
    store(out + j, load(out + j) + factor_product(w, sum));
  }
  if (j == n) return;
  f32s sum = factor_product(factor[0], load_part(q + j, n - j));
  for (std::size_t k = 1; k < count; ++k) sum += factor_product(factor[k], load_part(q + k * n + j, n - j));
  store_part(out + j, n - j, load_part(out + j, n - j) + factor_product(w, sum));
}

// out += weight · p qᵀ.
inline void add_product(float const* p, std::size_t m, float const* q, std::size_t n, std::size_t r, float weight,
                        float* out) {
  for (std::size_t i = 0; i < m; ++i) {
    std::size_t k = 0;
    for (; k + together <= r; k += together)
      add_product_row(p + k * m + i, m, q + k * n, n, together, weight, out + i * n);
    for (; k < r; ++k) add_product_row(p + k * m + i, m, q + k * n, n, 1, weight, out + i * n);
  }
}

#endif
