// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's pack and functions of one number for doubles: what rules run on whose parameters are doubles.
// Included by core/simd.hpp only, which says what they do.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/rounded.hpp>

namespace dovetail::simd {

#if defined(__CUDACC__)

inline namespace lanes_16_plain {

struct double_mask {
  std::int64_t bits[8];
};

struct double_pack {
  static constexpr int lanes = 8;
  double v[lanes];

  double_pack() = default;
  DOVETAIL_INLINE double_pack(double x) {
    for (double& lane : v) lane = x;
  }
  DOVETAIL_INLINE static double_pack load(double const* p) {
    return each([p](int i) { return p[i]; });
  }
  DOVETAIL_INLINE void store(double* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
  }
  /// Lane by lane.
  template <class F>
  DOVETAIL_INLINE static double_pack each(F const& f) {
    double_pack r;
    for (int i = 0; i < lanes; ++i) r.v[i] = f(i);
    return r;
  }
  template <class F>
  DOVETAIL_INLINE static double_mask mask(F const& f) {
    double_mask m;
    for (int i = 0; i < lanes; ++i) m.bits[i] = f(i) ? -1 : 0;
    return m;
  }

#define DOVETAIL_LANES(result, make, op)                                                  \
  DOVETAIL_INLINE friend result operator op(double_pack const& a, double_pack const& b) { \
    return make([&](int i) { return a.v[i] op b.v[i]; });                                 \
  }
  DOVETAIL_LANES(double_pack, each, +)
  DOVETAIL_LANES(double_pack, each, -)
  DOVETAIL_LANES(double_pack, each, *)
  DOVETAIL_LANES(double_pack, each, /)
  DOVETAIL_LANES(double_mask, mask, <)
  DOVETAIL_LANES(double_mask, mask, >)
  DOVETAIL_LANES(double_mask, mask, <=)
  DOVETAIL_LANES(double_mask, mask, >=)
  DOVETAIL_LANES(double_mask, mask, ==)
#undef DOVETAIL_LANES
  DOVETAIL_INLINE friend double_pack operator-(double_pack const& a) {
    return each([&](int i) { return -a.v[i]; });
  }
};

DOVETAIL_INLINE double_pack select(double_mask const& m, double_pack const& a, double_pack const& b) {
  return double_pack::each([&](int i) { return m.bits[i] ? a.v[i] : b.v[i]; });
}
DOVETAIL_INLINE double_pack keep(double_mask const& m, double_pack const& a) { return select(m, a, 0.0); }
DOVETAIL_INLINE double_mask is_nan(double_pack const& a) {
  return double_pack::mask([&](int i) { return dovetail::is_nan(a.v[i]); });
}
DOVETAIL_INLINE double_pack sqrt(double_pack const& a) {
  return double_pack::each([&](int i) { return __builtin_sqrt(a.v[i]); });
}
DOVETAIL_INLINE double_pack abs(double_pack const& a) {
  return double_pack::each([&](int i) { return __builtin_fabs(a.v[i]); });
}
DOVETAIL_INLINE double_pack min(double_pack const& a, double_pack const& b) { return select(b < a, b, a); }
DOVETAIL_INLINE double_pack max(double_pack const& a, double_pack const& b) { return select(a < b, b, a); }
DOVETAIL_INLINE double_pack sign(double_pack const& a) { return select(a > 0.0, 1.0, select(a < 0.0, -1.0, a)); }

#else

#if defined(__AVX__)
inline namespace lanes_8 {
#else
inline namespace lanes_4 {
#endif

/// The comparison of two packs: all bits of a lane set, or none.
struct double_mask {
  typedef std::int64_t vector __attribute__((vector_size(4 * pack_lanes)));
  vector bits;
};

/// One machine register of doubles.
struct double_pack {
  static constexpr int lanes = pack_lanes / 2;
  typedef double vector __attribute__((vector_size(4 * pack_lanes)));
  typedef double unaligned __attribute__((vector_size(4 * pack_lanes), aligned(8), may_alias));
  vector v;

  double_pack() = default;
  DOVETAIL_INLINE double_pack(vector x) : v(x) {}
  DOVETAIL_INLINE double_pack(double x) : v(x - vector{}) {}

  DOVETAIL_INLINE static double_pack load(double const* p) { return vector(*reinterpret_cast<unaligned const*>(p)); }
  DOVETAIL_INLINE void store(double* p) const { *reinterpret_cast<unaligned*>(p) = v; }

  DOVETAIL_INLINE friend double_pack operator+(double_pack a, double_pack b) { return a.v + b.v; }
  DOVETAIL_INLINE friend double_pack operator-(double_pack a, double_pack b) { return a.v - b.v; }
  DOVETAIL_INLINE friend double_pack operator*(double_pack a, double_pack b) { return dovetail::rounded(a.v * b.v); }
  DOVETAIL_INLINE friend double_pack operator/(double_pack a, double_pack b) { return a.v / b.v; }
  DOVETAIL_INLINE friend double_pack operator-(double_pack a) { return -a.v; }
  DOVETAIL_INLINE friend double_mask operator<(double_pack a, double_pack b) { return {a.v < b.v}; }
  DOVETAIL_INLINE friend double_mask operator>(double_pack a, double_pack b) { return {a.v > b.v}; }
  DOVETAIL_INLINE friend double_mask operator<=(double_pack a, double_pack b) { return {a.v <= b.v}; }
  DOVETAIL_INLINE friend double_mask operator>=(double_pack a, double_pack b) { return {a.v >= b.v}; }
  DOVETAIL_INLINE friend double_mask operator==(double_pack a, double_pack b) { return {a.v == b.v}; }
};

DOVETAIL_INLINE double_pack select(double_mask m, double_pack a, double_pack b) {
  auto const r = (double_mask::vector(a.v) & m.bits) | (double_mask::vector(b.v) & ~m.bits);
  return double_pack::vector(r);
}
DOVETAIL_INLINE double_pack keep(double_mask m, double_pack a) {
  auto const r = double_mask::vector(a.v) & m.bits;
  return double_pack::vector(r);
}
DOVETAIL_INLINE double_pack sqrt(double_pack a) {
#if defined(__AVX__)
  return _mm256_sqrt_pd(a.v);
#elif defined(__SSE2__)
  return _mm_sqrt_pd(a.v);
#elif defined(__aarch64__)
  return double_pack::vector(vsqrtq_f64(float64x2_t(a.v)));
#else
  for (int i = 0; i < double_pack::lanes; ++i) a.v[i] = __builtin_sqrt(a.v[i]);
  return a;
#endif
}
DOVETAIL_INLINE double_pack abs(double_pack a) {
  auto const r = double_mask::vector(a.v) & 0x7fffffffffffffff;
  return double_pack::vector(r);
}
DOVETAIL_INLINE double_pack min(double_pack a, double_pack b) {
#if defined(__AVX__)
  return _mm256_min_pd(b.v, a.v);
#elif defined(__SSE2__)
  return _mm_min_pd(b.v, a.v);
#else
  return select(b < a, b, a);
#endif
}
DOVETAIL_INLINE double_pack max(double_pack a, double_pack b) {
#if defined(__AVX__)
  return _mm256_max_pd(b.v, a.v);
#elif defined(__SSE2__)
  return _mm_max_pd(b.v, a.v);
#else
  return select(a < b, b, a);
#endif
}
DOVETAIL_INLINE double_pack sign(double_pack a) {
  double_pack const one = 1.0;
  auto const signs = double_mask::vector(a.v) & static_cast<std::int64_t>(0x8000000000000000u);
  auto const r = signs | double_mask::vector(one.v);
  return select(abs(a) > 0.0, double_pack(double_pack::vector(r)), a);
}
DOVETAIL_INLINE double_mask is_nan(double_pack a) {
  auto bits = double_mask::vector(a.v);
#if defined(__SSE2__)
  __asm__("" : "+x"(bits));
#elif defined(__aarch64__)
  __asm__("" : "+w"(bits));
#endif
  return {(bits & 0x7fffffffffffffff) > 0x7ff0000000000000};
}

#endif

/// A sum of products of doubles, lane by lane. Unlike those of floats they can overflow: a sum of squares is infinite
/// also where an element is beyond 1e154.
struct double_product_sum {
  double_pack sum = 0.0;
  DOVETAIL_INLINE void add(double_pack a, double_pack b) { sum = sum + a * b; }
  double total() const {
    double all = 0;
    for (int i = 0; i < double_pack::lanes; ++i) all += sum.v[i];
    return all;
  }
};

}  // inline namespace

template <class Pack>
struct loop_traits;
template <>
struct loop_traits<double_pack> {
  using sum_type = double_product_sum;
  using mask = double_mask;
  static constexpr int turns = 2;
};

// ---- one number. A float beside a double becomes one, as in arithmetic.

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
