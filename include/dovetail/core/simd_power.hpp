// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>

#include <dovetail/core/config.hpp>
#include <dovetail/core/simd.hpp>

// Powers for the number types of an elementwise rule (core/simd.hpp). Arithmetic only, so that a rule with a power is
// vectorized, and is the same formula on the host and on a device.

namespace dovetail::simd {

namespace detail {
/// log2(x) of x from 2^-126 to the largest float. With x = m 2^e, m within [2/3, 4/3): log m = 2 atanh s, s =
/// (m - 1) / (m + 1), |s| <= 1/5, of which five terms leave 1e-8.
template <class T>
DOVETAIL_INLINE constexpr T log2_of(T x) {
  T m = x;
  T const e = split(x, m);
  T const s = (m - 1.0f) / (m + 1.0f), z = s * s;
  return e + 2.8853900818f * s * (1.0f + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * 0.11111111f))));
}
/// 2^y, y held within [-126, 127.5]: 2^n e^(r ln 2), |r| <= 1/2, seven terms behind the 1.
template <class T>
DOVETAIL_INLINE constexpr T exp2_of(T y) {
  y = max(min(y, T(127.5f)), T(-126.0f));
  T const n = min(whole(y + select(y < 0.0f, T(-0.5f), T(0.5f))), T(127.0f)), q = 0.69314718f * (y - n);
  T const series =
      1.0f +
      q * (1.0f + q * (0.5f + q * (0.16666667f + q * (0.041666667f +
                                                      q * (0.0083333333f + q * (0.0013888889f + q * 1.9841270e-4f))))));
  return two_to(n) * series;
}
}  // namespace detail

/// x^p for p > 0, held within [2^-126, 2^127.5]: 0 for x below the smallest normal number, 2^-126, also a negative one;
/// NaN stays; infinity counts as 2^128. The relative error of what lies within is below 3e-7 + 1e-7 |p log2 x|. Powers
/// of 1, 1/2 and 1/4 are roots of max(x, 0), exact to rounding, for all of x, and several times as fast.
template <class T>
DOVETAIL_INLINE constexpr T pow(T x, float p) {
  if (p == 1.0f) return max(x, T(0.0f));
  if (p == 0.5f) return sqrt(max(x, T(0.0f)));
  if (p == 0.25f) return sqrt(sqrt(max(x, T(0.0f))));
  constexpr float smallest = 1.17549435e-38f;
  T const power = detail::exp2_of(p * detail::log2_of(max(x, T(smallest))));
  return select(is_nan(x), x, select(x >= smallest, power, T(0.0f)));
}
constexpr tracer pow(tracer x, float) { return tracer(x.inputs); }
/// Of doubles it is the C library's, element by element: to rounding, and 0 for x <= 0.
inline double pow(double x, float p) {
  if (p == 1.0f) return max(x, 0.0);
  if (p == 0.5f) return sqrt(max(x, 0.0));
  if (p == 0.25f) return sqrt(sqrt(max(x, 0.0)));
  return x > 0 || is_nan(x) ? std::pow(x, static_cast<double>(p)) : 0.0;
}
inline double_pack pow(double_pack x, float p) {
  for (int i = 0; i < double_pack::lanes; ++i) x.v[i] = pow(x.v[i], p);
  return x;
}

}  // namespace dovetail::simd
