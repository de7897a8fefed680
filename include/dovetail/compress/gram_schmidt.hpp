// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>

#include <dovetail/core/finite.hpp>
#include <dovetail/core/rounded.hpp>

namespace dovetail::compress {

namespace detail {

/// In double, where a product of two floats is exact: the same bits whether or not it is fused with the sum.
inline double dot(float const* a, float const* b, std::size_t n) {
  double sum[4] = {};
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (std::size_t j = 0; j < 4; ++j) sum[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (; i < n; ++i) sum[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
inline void multiply(float* x, std::size_t n, double factor) {
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(static_cast<double>(x[i]) * factor);
}

/// One column against `before` orthonormal ones that lie in front of it. False if it lies in their span, is 0 or not
/// finite: what it then holds is of no use.
inline bool orthonormalize_column(float* x, std::size_t n, std::size_t before) {
  double square = dot(x, x, n);
  if (!is_finite(square) || !(square > 0)) return false;
  multiply(x, n, 1 / std::sqrt(square));
  for (int pass = 0; pass < 2; ++pass) {
    float const* column = x - before * n;
    for (std::size_t k = 0; k < before; ++k, column += n) {
      double const along = dot(x, column, n);
      for (std::size_t i = 0; i < n; ++i)
        x[i] = static_cast<float>(static_cast<double>(x[i]) - rounded(along * static_cast<double>(column[i])));
    }
    square = dot(x, x, n);
    // Of a column in the span of the others rounding leaves 1e-7 of its length, in no direction that means anything.
    if (!(square > 1e-10)) return false;
    multiply(x, n, 1 / std::sqrt(square));
  }
  return true;
}

}  // namespace detail

/// Makes `count` columns of n floats, one behind the other, orthonormal to the precision of a float (Gram-Schmidt, each
/// column twice); count is at most n. A column that is 0, not finite or in the span of those before it becomes
/// `noise(column, i)`, so that no column is lost for ever. The same bits on every processor.
template <class Noise>
void orthonormalize(float* columns, std::size_t n, std::size_t count, Noise const& noise) {
  for (std::size_t k = 0; k < count; ++k) {
    float* const x = columns + k * n;
    // Should noise lie in the span as well, one of the unit vectors does not.
    for (std::size_t attempt = 0; !detail::orthonormalize_column(x, n, k); ++attempt)
      for (std::size_t i = 0; i < n; ++i) x[i] = attempt == 0 ? noise(k, i) : attempt == i + 1 ? 1.0f : 0.0f;
  }
}

}  // namespace dovetail::compress
