// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Elementwise arithmetic of layers in explicit vectors of the width that every machine of the architecture has, so that
// its speed does not depend on the user's flags: GCC's -O2 leaves loops of unknown length scalar and calls libm.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

namespace dovetail::nn::detail {
using namespace simd::baseline;
#define DOVETAIL_NN_LEVEL
#include <dovetail/nn/vector_math.inc.hpp>
}  // namespace dovetail::nn::detail

#if DOVETAIL_X86_LEVELS
DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX2)
/// The same for kernels that are compiled a second time (nn/cells.hpp).
namespace dovetail::nn::kernels::avx2 {
using namespace simd::avx2;
#include <dovetail/nn/vector_math.inc.hpp>
}  // namespace dovetail::nn::kernels::avx2
DOVETAIL_TARGET_END
#endif
#undef DOVETAIL_NN_LEVEL

namespace dovetail::nn::detail {

/// to = a + b; `to` may be one of them.
DOVETAIL_NOINLINE inline void add(float* to, float const* a, float const* b, std::size_t n) {
  map(
      n, to, [](f32s x, f32s y) { return x + y; }, a, b);
}
DOVETAIL_NOINLINE inline void add_to(float* to, float const* from, std::size_t n) {
  map(
      n, to, [](f32s a, f32s b) { return a + b; }, to, from);
}

/// sums[j] (+)= the sum over k in [0, count) of row(k)[j]. Eight rows are added as a tree and trees in double
/// precision: a float that has taken in a million rows no longer notices the next one.
template <class Row>
DOVETAIL_HOST_INLINE void sum_of_rows(float* sums, std::size_t count, std::size_t width, bool accumulate,
                                      Row const& row) {
  constexpr std::size_t strip = 128;  // columns whose sums stay in the first cache
  for (std::size_t j0 = 0; j0 < width; j0 += strip) {
    std::size_t const n = width - j0 < strip ? width - j0 : strip;
    double totals[strip] = {};
    auto const add = [&](auto const& at) {
      for (std::size_t j = 0; j < n; j += lanes) {
        std::size_t const m = n - j < lanes ? n - j : lanes;
        f32s const s = at(j0 + j, m);
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
DOVETAIL_HOST_INLINE void transpose_4x4(float* to, std::size_t to_stride, float const* from, std::size_t from_stride) {
  f32s const a = load(from), b = load(from + from_stride), c = load(from + 2 * from_stride);
  f32s const d = load(from + 3 * from_stride);
  f32s const ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  f32s const cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
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
