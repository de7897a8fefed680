// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's functions for one float or double. A float beside a double becomes one, as in arithmetic.
#include <bit>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>

namespace dovetail::simd {

DOVETAIL_INLINE constexpr float select(bool m, float a, float b) { return m ? a : b; }
DOVETAIL_INLINE float sqrt(float a) { return __builtin_sqrtf(a); }
DOVETAIL_INLINE float abs(float a) { return __builtin_fabsf(a); }
/// The smaller (larger) one; a NaN in the first argument stays.
DOVETAIL_INLINE constexpr float min(float a, float b) { return b < a ? b : a; }
DOVETAIL_INLINE constexpr float max(float a, float b) { return a < b ? b : a; }
/// -1 or 1; zeros and NaN stay what they are.
DOVETAIL_INLINE constexpr float sign(float a) { return a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : a; }
DOVETAIL_INLINE constexpr bool is_nan(float a) { return dovetail::is_nan(a); }

// For core/simd_power.hpp: x > 0 as mantissa times 2^result, the mantissa within [2/3, 4/3); x without its fraction,
// for |x| < 2^31; and 2^n of an integral n from -126 to 127.
DOVETAIL_INLINE constexpr float split(float x, float& mantissa) {
  auto const bits = std::bit_cast<std::int32_t>(x);
  std::int32_t const exponent = (bits - 0x3f2aaaab) >> 23;
  mantissa = std::bit_cast<float>(bits - (exponent << 23));
  return static_cast<float>(exponent);
}
DOVETAIL_INLINE constexpr float whole(float x) { return static_cast<float>(static_cast<std::int32_t>(x)); }
DOVETAIL_INLINE constexpr float two_to(float n) {
  return std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

template <class T>
concept just_double = std::is_same_v<T, double>;
template <class A, class B>
concept double_beside = (std::is_same_v<A, double> ||
                         std::is_same_v<B, double>)&&std::is_floating_point_v<A>&& std::is_floating_point_v<B>;

template <class A, class B>
requires double_beside<A, B> DOVETAIL_INLINE constexpr double select(bool m, A a, B b) { return m ? a : b; }
template <just_double T>
DOVETAIL_INLINE T sqrt(T a) {
  return __builtin_sqrt(a);
}
template <just_double T>
DOVETAIL_INLINE T abs(T a) {
  return __builtin_fabs(a);
}
template <class A, class B>
requires double_beside<A, B> DOVETAIL_INLINE constexpr double min(A a, B b) { return b < a ? b : a; }
template <class A, class B>
requires double_beside<A, B> DOVETAIL_INLINE constexpr double max(A a, B b) { return a < b ? b : a; }
template <just_double T>
DOVETAIL_INLINE constexpr T sign(T a) {
  return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a;
}
template <just_double T>
DOVETAIL_INLINE constexpr bool is_nan(T a) {
  return dovetail::is_nan(a);
}

}  // namespace dovetail::simd
