// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Elementwise arithmetic of layers in explicit packs of the width that every machine of the architecture has, so that
// its speed does not depend on the user's flags: GCC's -O2 leaves loops of unknown length scalar and calls libm.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <dovetail/core/config.hpp>

namespace dovetail::nn::detail {

inline constexpr std::size_t lanes = 4;
using pack = float __attribute__((vector_size(lanes * sizeof(float))));
using pack_bits = std::int32_t __attribute__((vector_size(lanes * sizeof(float))));

DOVETAIL_INLINE pack load(float const* p) {
  pack v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
DOVETAIL_INLINE void store(float* p, pack v) { std::memcpy(p, &v, sizeof v); }
DOVETAIL_INLINE pack load_part(float const* p, std::size_t n) {
  pack v{};
  for (std::size_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
DOVETAIL_INLINE void store_part(float* p, std::size_t n, pack v) {
  for (std::size_t i = 0; i < n; ++i) p[i] = v[i];
}
DOVETAIL_INLINE pack broadcast(float f) { return pack{} + f; }
// Flags that let a compiler assume that no number is NaN or infinite.
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
constexpr bool finite_only = true;
#else
constexpr bool finite_only = false;
#endif

/// The same value, of which the compiler no longer knows where it comes from.
DOVETAIL_INLINE pack hidden(pack v) {
#if defined(__CUDA_ARCH__)
#elif defined(__SSE2__)
  __asm__("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(v));
#else
  __asm__("" : "+m"(v));
#endif
  return v;
}
DOVETAIL_INLINE pack_bits bits_of(pack v) {
  if constexpr (finite_only) v = hidden(v);  // otherwise these are known not to be a NaN's
  pack_bits b;
  std::memcpy(&b, &v, sizeof b);
  return b;
}
DOVETAIL_INLINE pack floats_of(pack_bits b) {
  pack v;
  std::memcpy(&v, &b, sizeof v);
  return v;
}
/// mask ? a : b, lane by lane; a mask is what a comparison of packs gives.
DOVETAIL_INLINE pack select(pack_bits mask, pack a, pack b) {
  return floats_of((bits_of(a) & mask) | (bits_of(b) & ~mask));
}

/// Which lanes are NaN, by their bits: v != v holds nowhere where the program is compiled with -ffast-math.
DOVETAIL_INLINE pack_bits is_nan(pack v) { return (bits_of(v) & 0x7fffffff) > 0x7f800000; }
/// `result`, but `value` in lanes where v is NaN. Comparisons with NaN are false, and layers count on it, but
/// -ffast-math lets a compiler ask for the opposite instead.
DOVETAIL_INLINE pack for_nan(pack v, pack value, pack result) {
  return finite_only ? select(is_nan(v), value, result) : result;
}

/// e^x within 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays NaN. Infinity is the largest float where -ffast-math
/// divides by way of reciprocals, of which that of infinity is NaN.
DOVETAIL_INLINE pack exp(pack x) {
  // x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 × 2^23 rounds to an integer that then sits in the low bits. What is
  // hidden here -ffast-math would reorder, so that nothing were rounded.
  constexpr float magic = 12582912.f;
  pack const high = broadcast(88.72283f), low = broadcast(-87.33654f);
  pack const c = select(x > high, high, select(x < low, low, x));
  pack const shifted = hidden(c * 1.44269504f + magic);
  pack const n = hidden(shifted - magic);
  pack const r = hidden(c - n * 0.693359375f) - n * -2.12194440e-4f;
  pack p = r * 1.9875691500e-4f + 1.3981999507e-3f;  // minimax polynomial of Cephes' expf
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  // 2^n in two factors: n = 128 is beyond one exponent.
  pack_bits const k = bits_of(shifted) - bits_of(broadcast(magic)), half = k >> 1;
  pack const e = hidden(p * floats_of((half + 127) << 23)) * floats_of((k - half + 127) << 23);
  return for_nan(
      x, x,
      select(x < low, pack{}, select(x > high, floats_of(pack_bits{} + (finite_only ? 0x7f7fffff : 0x7f800000)), e)));
}

/// 1 / (1 + e^-x).
DOVETAIL_INLINE pack sigmoid(pack x) { return 1.f / (1.f + exp(-x)); }

/// tanh within 3 ulp: an odd polynomial (Cephes' tanhf) near zero, where 1 - 2/(e^2x + 1) would cancel.
DOVETAIL_INLINE pack tanh(pack x) {
  pack_bits const sign = bits_of(x) & (pack_bits{} + INT32_MIN);
  pack const a = floats_of(bits_of(x) ^ sign);
  pack const s = x * x;
  pack p = s * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * s + -5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s + -3.33332819422e-1f;
  p = p * s * x + x;
  pack const large = 1.f - 2.f / (exp(a + a) + 1.f);
  return select(a < broadcast(0.625f), p, floats_of(bits_of(large) | sign));
}

/// out[i] = f(in[i]…) for i in [0, n); out may be one of the inputs.
template <class F, class... In>
DOVETAIL_INLINE void map(std::size_t n, float* out, F f, In const*... in) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, f(load(in + i)...));
  if (i < n) store_part(out + i, n - i, f(load_part(in + i, n - i)...));
}

DOVETAIL_NOINLINE inline void add_to(float* to, float const* from, std::size_t n) {
  map(
      n, to, [](pack a, pack b) { return a + b; }, to, from);
}

/// sums[j] (+)= the sum over k in [0, count) of row(k)[j]. Eight rows are added as a tree and trees in double
/// precision: a float that has taken in a million rows no longer notices the next one.
template <class Row>
DOVETAIL_INLINE void sum_of_rows(float* sums, std::size_t count, std::size_t width, bool accumulate, Row const& row) {
  constexpr std::size_t strip = 128;  // columns whose sums stay in the first cache
  for (std::size_t j0 = 0; j0 < width; j0 += strip) {
    std::size_t const n = width - j0 < strip ? width - j0 : strip;
    double totals[strip] = {};
    auto const add = [&](auto const& at) {
      for (std::size_t j = 0; j < n; j += lanes) {
        std::size_t const m = n - j < lanes ? n - j : lanes;
        pack const s = at(j0 + j, m);
        for (std::size_t i = 0; i < m; ++i) totals[j + i] += static_cast<double>(s[i]);
      }
    };
    std::size_t k = 0;
    for (; k + 8 <= count; k += 8)
      add([&](std::size_t j, std::size_t m) {
        auto const at = [&](std::size_t r) { return m == lanes ? load(row(k + r) + j) : load_part(row(k + r) + j, m); };
        return ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
      });
    for (; k < count; ++k)
      add([&](std::size_t j, std::size_t m) { return m == lanes ? load(row(k) + j) : load_part(row(k) + j, m); });
    for (std::size_t j = 0; j < n; ++j)
      sums[j0 + j] = static_cast<float>(totals[j] + (accumulate ? static_cast<double>(sums[j0 + j]) : 0.0));
  }
}

/// sums[j] (+)= the sum over rows of x[row][j].
DOVETAIL_NOINLINE inline void sum_rows(float* sums, float const* x, std::size_t rows, std::size_t width,
                                       bool accumulate) {
  sum_of_rows(sums, rows, width, accumulate, [=](std::size_t r) { return x + r * width; });
}

/// Every row of x becomes `values`.
inline void fill_rows(float* x, float const* values, std::size_t rows, std::size_t width) {
  for (std::size_t r = 0; r < rows; ++r) std::memcpy(x + r * width, values, width * sizeof(float));
}

/// Four rows of four floats become its columns.
DOVETAIL_INLINE void transpose_4x4(float* to, std::size_t to_stride, float const* from, std::size_t from_stride) {
  pack const a = load(from), b = load(from + from_stride), c = load(from + 2 * from_stride);
  pack const d = load(from + 3 * from_stride);
  pack const ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  pack const cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store(to + to_stride, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  store(to + 2 * to_stride, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store(to + 3 * to_stride, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

/// to[j][i] = from[i][j].
DOVETAIL_NOINLINE inline void transpose(float* DOVETAIL_RESTRICT to, float const* DOVETAIL_RESTRICT from,
                                        std::size_t rows, std::size_t columns) {
  constexpr std::size_t tile = 16;  // a tile of both matrices stays in the cache
  for (std::size_t i0 = 0; i0 < rows; i0 += tile)
    for (std::size_t j0 = 0; j0 < columns; j0 += tile) {
      auto const i1 = i0 + tile < rows ? i0 + tile : rows, j1 = j0 + tile < columns ? j0 + tile : columns;
      std::size_t i = i0;
      for (; i + 4 <= i1; i += 4) {
        std::size_t j = j0;
        for (; j + 4 <= j1; j += 4) transpose_4x4(to + j * rows + i, rows, from + i * columns + j, columns);
        for (; j < j1; ++j)
          for (std::size_t k = i; k < i + 4; ++k) to[j * rows + k] = from[k * columns + j];
      }
      for (; i < i1; ++i)
        for (std::size_t j = j0; j < j1; ++j) to[j * rows + i] = from[i * columns + j];
    }
}

}  // namespace dovetail::nn::detail
