// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's numbers of one machine register. Included by core/simd.hpp only, which says what they do.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/rounded.hpp>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace dovetail::simd {

// Translation units with other target flags see another type, with other symbols: they can be linked together.
// 512-bit registers would add nothing: at 256 bits a step already waits for memory.
#if defined(__AVX__)
inline namespace lanes_8 {
#define DOVETAIL_VECTOR_LANES 8
#else
inline namespace lanes_4 {
#define DOVETAIL_VECTOR_LANES 4
#endif

/// The vectors of the program's own processor.
namespace own {
#include <dovetail/core/vectors.inc.hpp>
}
#undef DOVETAIL_VECTOR_LANES

/// The comparison of two packs of T: all bits of an element set, or none.
template <class T>
struct basic_mask {
  using vector = own::mask<own::register_of<T>>;
  vector bits;
};

/// One machine register of T, which is float or double.
template <class T>
struct basic_pack {
  using vector = own::register_of<T>;
  using mask = basic_mask<T>;
  static constexpr int lanes = 4 * own::lanes / static_cast<int>(sizeof(T));
  vector v;

  basic_pack() = default;
  DOVETAIL_INLINE basic_pack(vector x) : v(x) {}
  DOVETAIL_INLINE basic_pack(T x) : v(x - vector{}) {}  // x - 0 is x for every x, -0 and NaN too: a broadcast

  DOVETAIL_INLINE static basic_pack load(T const* p) { return own::load<vector>(p); }
  DOVETAIL_INLINE void store(T* p) const { own::store(p, v); }

  DOVETAIL_INLINE friend basic_pack operator+(basic_pack a, basic_pack b) { return a.v + b.v; }
  DOVETAIL_INLINE friend basic_pack operator-(basic_pack a, basic_pack b) { return a.v - b.v; }
  DOVETAIL_INLINE friend basic_pack operator*(basic_pack a, basic_pack b) { return dovetail::rounded(a.v * b.v); }
  DOVETAIL_INLINE friend basic_pack operator/(basic_pack a, basic_pack b) { return a.v / b.v; }
  DOVETAIL_INLINE friend basic_pack operator-(basic_pack a) { return -a.v; }
  DOVETAIL_INLINE friend mask operator<(basic_pack a, basic_pack b) { return {a.v < b.v}; }
  DOVETAIL_INLINE friend mask operator>(basic_pack a, basic_pack b) { return {a.v > b.v}; }
  DOVETAIL_INLINE friend mask operator<=(basic_pack a, basic_pack b) { return {a.v <= b.v}; }
  DOVETAIL_INLINE friend mask operator>=(basic_pack a, basic_pack b) { return {a.v >= b.v}; }
  DOVETAIL_INLINE friend mask operator==(basic_pack a, basic_pack b) { return {a.v == b.v}; }
};
using pack = basic_pack<float>;
using double_pack = basic_pack<double>;

template <class T>
DOVETAIL_INLINE basic_pack<T> select(basic_mask<T> m, std::type_identity_t<basic_pack<T>> a,
                                     std::type_identity_t<basic_pack<T>> b) {
  return own::select(m.bits, a.v, b.v);
}
/// a where the mask is set, 0 elsewhere.
template <class T>
DOVETAIL_INLINE basic_pack<T> keep(basic_mask<T> m, basic_pack<T> a) {
  return own::bits_as<typename basic_pack<T>::vector>(own::bits_of(a.v) & m.bits);
}
template <class T>
DOVETAIL_INLINE basic_mask<T> is_nan(basic_pack<T> a) {
  return {own::is_nan(a.v)};
}
template <class T>
DOVETAIL_INLINE basic_pack<T> abs(basic_pack<T> a) {
  return own::abs(a.v);
}
template <class T>
DOVETAIL_INLINE basic_pack<T> sign(basic_pack<T> a) {
  basic_pack<T> const magnitude = own::abs(a.v), one = T{1};
  auto const signs = own::bits_of(a.v) ^ own::bits_of(magnitude.v);
  return select(magnitude > T{0}, own::bits_as<typename basic_pack<T>::vector>(signs | own::bits_of(one.v)), a);
}
// No templates: a number on either side becomes a pack.
DOVETAIL_INLINE pack min(pack a, pack b) { return own::min(a.v, b.v); }
DOVETAIL_INLINE pack max(pack a, pack b) { return own::max(a.v, b.v); }
DOVETAIL_INLINE double_pack min(double_pack a, double_pack b) { return own::min(a.v, b.v); }
DOVETAIL_INLINE double_pack max(double_pack a, double_pack b) { return own::max(a.v, b.v); }

template <class T>
DOVETAIL_INLINE basic_pack<T> sqrt(basic_pack<T> a) {
  [[maybe_unused]] constexpr bool floats = std::is_same_v<T, float>;
#if defined(__clang__)
  return __builtin_elementwise_sqrt(a.v);
#elif defined(__AVX__)
  if constexpr (floats)
    return __builtin_ia32_sqrtps256(a.v);
  else
    return __builtin_ia32_sqrtpd256(a.v);
#elif defined(__SSE2__)
  if constexpr (floats)
    return __builtin_ia32_sqrtps(a.v);
  else
    return __builtin_ia32_sqrtpd(a.v);
#elif defined(__aarch64__)
  if constexpr (floats)
    return own::f32s(vsqrtq_f32(float32x4_t(a.v)));
  else
    return own::f64s(vsqrtq_f64(float64x2_t(a.v)));
#else
  for (int i = 0; i < basic_pack<T>::lanes; ++i) a.v[i] = simd::sqrt(a.v[i]);
  return a;
#endif
}

DOVETAIL_INLINE pack split(pack x, pack& mantissa) {
  own::i32s const bits = own::bits_as<own::i32s>(x.v), exponent = (bits - 0x3f2aaaab) >> 23;
  mantissa = own::bits_as<own::f32s>(bits - (exponent << 23));
  return __builtin_convertvector(exponent, own::f32s);
}
DOVETAIL_INLINE pack whole(pack x) {
  return __builtin_convertvector(__builtin_convertvector(x.v, own::i32s), own::f32s);
}
DOVETAIL_INLINE pack two_to(pack n) {
  return own::bits_as<own::f32s>((__builtin_convertvector(n.v, own::i32s) + 127) << 23);
}

/// A sum of products, lane by lane, in double precision: squares of floats neither overflow nor vanish in it, so a sum
/// of squares is finite exactly when all the elements were. Those of doubles can overflow: it is infinite also where an
/// element is beyond 1e154.
template <class T>
struct product_sum;
template <>
struct product_sum<float> {
  own::f64s sum{};

#if defined(__AVX__)
#define DOVETAIL_LOW 0, 1, 2, 3
#define DOVETAIL_HIGH 4, 5, 6, 7
#else
#define DOVETAIL_LOW 0, 1
#define DOVETAIL_HIGH 2, 3
#endif
#if defined(__aarch64__)  // GCC converts a half of a register element by element
  DOVETAIL_INLINE static own::f64s low(pack a) { return own::f64s(vcvt_f64_f32(vget_low_f32(float32x4_t(a.v)))); }
  DOVETAIL_INLINE static own::f64s high(pack a) { return own::f64s(vcvt_high_f64_f32(float32x4_t(a.v))); }
#elif defined(__AVX__) && !defined(__clang__)
  DOVETAIL_INLINE static own::f64s low(pack a) {
    return __builtin_ia32_cvtps2pd256(__builtin_shufflevector(a.v, a.v, DOVETAIL_LOW));
  }
  DOVETAIL_INLINE static own::f64s high(pack a) {
    return __builtin_ia32_cvtps2pd256(__builtin_shufflevector(a.v, a.v, DOVETAIL_HIGH));
  }
#elif defined(__SSE2__) && !defined(__clang__)
  DOVETAIL_INLINE static own::f64s low(pack a) { return __builtin_ia32_cvtps2pd(a.v); }
  DOVETAIL_INLINE static own::f64s high(pack a) {
    return __builtin_ia32_cvtps2pd(__builtin_shufflevector(a.v, a.v, 2, 3, 2, 3));
  }
#else
  DOVETAIL_INLINE static own::f64s low(pack a) {
    return __builtin_convertvector(__builtin_shufflevector(a.v, a.v, DOVETAIL_LOW), own::f64s);
  }
  DOVETAIL_INLINE static own::f64s high(pack a) {
    return __builtin_convertvector(__builtin_shufflevector(a.v, a.v, DOVETAIL_HIGH), own::f64s);
  }
#endif
#undef DOVETAIL_LOW
#undef DOVETAIL_HIGH
  // The products are exact, so it does not matter whether they are fused.
  DOVETAIL_INLINE void add(pack a, pack b) { sum = sum + (low(a) * low(b) + high(a) * high(b)); }
  double total() const {
#if defined(__AVX__)
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
#else
    return sum[0] + sum[1];
#endif
  }
};
template <>
struct product_sum<double> {
  double_pack sum = 0.0;
  DOVETAIL_INLINE void add(double_pack a, double_pack b) { sum = sum + a * b; }
  double total() const {
    double all = 0;
    for (int i = 0; i < double_pack::lanes; ++i) all += sum.v[i];
    return all;
  }
};

}  // inline namespace
}  // namespace dovetail::simd
