// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The number types of an elementwise rule. A rule is a template over its number type T and never branches on values:
//   float, double  one element: tests, and a device's rows and columns
//   simd::element  one element of a device's pass (core/simd_element.hpp)
//   simd::pack     one machine register of elements: the host's loops. Of doubles: simd::double_pack
//   simd::tracer   no element, but the set of inputs that a result depends on: evaluated at compile time
// All have + - * / and unary -, comparisons, and in dovetail::simd: sqrt abs min max sign select. A float
// converts to each of them, so constants need no ceremony. simd::pow has a header of its own, core/simd_power.hpp.
//
// Explicit vectors, because GCC at -O2 does not vectorize loops of unknown length, and because std::sqrt may set errno
// and therefore stays scalar: a program built without any flags must still run at the speed of memory.

#include <bit>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/simd_element.hpp>

#if defined(__CUDACC__)
#include <dovetail/core/simd_plain.hpp>
#elif defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace dovetail::simd {

#if !defined(__CUDACC__)  // which has its pack from above

// Translation units with other target flags see another type, with other symbols: they can be linked together.
// 512-bit registers would add nothing: at 256 bits a step already waits for memory.
#if defined(__AVX__)
inline namespace lanes_8 {
inline constexpr int pack_lanes = 8;
#else
inline namespace lanes_4 {
inline constexpr int pack_lanes = 4;
#endif

/// The comparison of two packs: all bits of a lane set, or none.
struct pack_mask {
  typedef std::int32_t vector __attribute__((vector_size(4 * pack_lanes)));
  vector bits;
};

/// One machine register of floats.
struct pack {
  static constexpr int lanes = pack_lanes;
  typedef float vector __attribute__((vector_size(4 * pack_lanes)));
  typedef float unaligned __attribute__((vector_size(4 * pack_lanes), aligned(4), may_alias));
  vector v;

  pack() = default;
  DOVETAIL_INLINE pack(vector x) : v(x) {}
  DOVETAIL_INLINE pack(float x) : v(x - vector{}) {}  // x - 0 is x for every x, -0 and NaN too: a broadcast

  DOVETAIL_INLINE static pack load(float const* p) { return vector(*reinterpret_cast<unaligned const*>(p)); }
  DOVETAIL_INLINE void store(float* p) const { *reinterpret_cast<unaligned*>(p) = v; }

  DOVETAIL_INLINE friend pack operator+(pack a, pack b) { return a.v + b.v; }
  DOVETAIL_INLINE friend pack operator-(pack a, pack b) { return a.v - b.v; }
  DOVETAIL_INLINE friend pack operator*(pack a, pack b) { return dovetail::rounded(a.v * b.v); }
  DOVETAIL_INLINE friend pack operator/(pack a, pack b) { return a.v / b.v; }
  DOVETAIL_INLINE friend pack operator-(pack a) { return -a.v; }
  DOVETAIL_INLINE friend pack_mask operator<(pack a, pack b) { return {a.v < b.v}; }
  DOVETAIL_INLINE friend pack_mask operator>(pack a, pack b) { return {a.v > b.v}; }
  DOVETAIL_INLINE friend pack_mask operator<=(pack a, pack b) { return {a.v <= b.v}; }
  DOVETAIL_INLINE friend pack_mask operator>=(pack a, pack b) { return {a.v >= b.v}; }
  DOVETAIL_INLINE friend pack_mask operator==(pack a, pack b) { return {a.v == b.v}; }
};

DOVETAIL_INLINE pack select(pack_mask m, pack a, pack b) {
  auto const x = pack_mask::vector(a.v);
  auto const y = pack_mask::vector(b.v);
  auto const r = (x & m.bits) | (y & ~m.bits);
  return pack::vector(r);
}
/// a where the mask is set, 0 elsewhere.
DOVETAIL_INLINE pack keep(pack_mask m, pack a) {
  auto const r = pack_mask::vector(a.v) & m.bits;
  return pack::vector(r);
}
/// Sets the first `n` lanes.
template <class Mask>
DOVETAIL_INLINE void first_lanes(Mask& m, int n) {
  for (std::size_t i = 0; i < sizeof(m.bits) / sizeof(m.bits[0]); ++i) m.bits[i] = static_cast<int>(i) < n ? -1 : 0;
}
DOVETAIL_INLINE pack sqrt(pack a) {
#if defined(__AVX__)
  return _mm256_sqrt_ps(a.v);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(a.v);
#elif defined(__aarch64__)
  return pack::vector(vsqrtq_f32(float32x4_t(a.v)));
#else
  for (int i = 0; i < pack_lanes; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
#endif
}
DOVETAIL_INLINE pack abs(pack a) {
  auto const r = pack_mask::vector(a.v) & 0x7fffffff;
  return pack::vector(r);
}
// One instruction each: minps and maxps give their second operand when either is a NaN, or both are zeros.
DOVETAIL_INLINE pack min(pack a, pack b) {
#if defined(__AVX__)
  return _mm256_min_ps(b.v, a.v);
#elif defined(__SSE2__)
  return _mm_min_ps(b.v, a.v);
#else
  return select(b < a, b, a);
#endif
}
DOVETAIL_INLINE pack max(pack a, pack b) {
#if defined(__AVX__)
  return _mm256_max_ps(b.v, a.v);
#elif defined(__SSE2__)
  return _mm_max_ps(b.v, a.v);
#else
  return select(a < b, b, a);
#endif
}
DOVETAIL_INLINE pack sign(pack a) {
  pack const one = 1.0f;
  auto const signs = pack_mask::vector(a.v) & static_cast<std::int32_t>(0x80000000u);
  auto const r = signs | pack_mask::vector(one.v);
  return select(abs(a) > 0.0f, pack(pack::vector(r)), a);
}

/// By bits, which flags that let a compiler forget NaN do not touch (core/finite.hpp).
DOVETAIL_INLINE pack_mask is_nan(pack a) {
  auto bits = pack_mask::vector(a.v);
#if defined(__SSE2__)
  __asm__("" : "+x"(bits));
#elif defined(__aarch64__)
  __asm__("" : "+w"(bits));
#endif
  return {(bits & 0x7fffffff) > 0x7f800000};
}

// For core/simd_power.hpp: x > 0 as mantissa times 2^result, the mantissa within [2/3, 4/3); x without its fraction,
// for |x| < 2^31; and 2^n of an integral n from -126 to 127.
DOVETAIL_INLINE pack split(pack x, pack& mantissa) {
  auto const bits = pack_mask::vector(x.v);
  auto const exponent = (bits - 0x3f2aaaab) >> 23;
  auto const m = bits - (exponent << 23);
  mantissa = pack::vector(m);
  return __builtin_convertvector(exponent, pack::vector);
}
DOVETAIL_INLINE pack whole(pack x) {
  auto const n = __builtin_convertvector(x.v, pack_mask::vector);
  return __builtin_convertvector(n, pack::vector);
}
DOVETAIL_INLINE pack two_to(pack n) {
  auto const r = (__builtin_convertvector(n.v, pack_mask::vector) + 127) << 23;
  return pack::vector(r);
}

/// A sum of products in double precision, lane by lane: squares of floats neither overflow nor vanish in it, so a sum
/// of squares is finite exactly when all the elements were.
struct product_sum {
#if defined(__AVX__)
  __m256d sum = _mm256_setzero_pd();
  DOVETAIL_INLINE static __m256d low(pack a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a.v)); }
  DOVETAIL_INLINE static __m256d high(pack a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1)); }
  DOVETAIL_INLINE void add(pack a, pack b) {
    sum = _mm256_add_pd(sum, _mm256_add_pd(_mm256_mul_pd(low(a), low(b)), _mm256_mul_pd(high(a), high(b))));
  }
  double total() const { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }
#elif defined(__SSE2__)
  __m128d sum = _mm_setzero_pd();
  DOVETAIL_INLINE static __m128d low(pack a) { return _mm_cvtps_pd(a.v); }
  DOVETAIL_INLINE static __m128d high(pack a) { return _mm_cvtps_pd(_mm_movehl_ps(a.v, a.v)); }
  DOVETAIL_INLINE void add(pack a, pack b) {
    sum = _mm_add_pd(sum, _mm_add_pd(_mm_mul_pd(low(a), low(b)), _mm_mul_pd(high(a), high(b))));
  }
  double total() const { return sum[0] + sum[1]; }
#else                     // the sums of SSE2
  typedef double vector __attribute__((vector_size(16)));
  vector sum{};
#if defined(__aarch64__)  // GCC converts a half of a register element by element
  DOVETAIL_INLINE static vector low(pack a) { return vector(vcvt_f64_f32(vget_low_f32(float32x4_t(a.v)))); }
  DOVETAIL_INLINE static vector high(pack a) { return vector(vcvt_high_f64_f32(float32x4_t(a.v))); }
#else
  DOVETAIL_INLINE static vector low(pack a) {
    return __builtin_convertvector(__builtin_shufflevector(a.v, a.v, 0, 1), vector);
  }
  DOVETAIL_INLINE static vector high(pack a) {
    return __builtin_convertvector(__builtin_shufflevector(a.v, a.v, 2, 3), vector);
  }
#endif
  // The products are exact, so it does not matter whether they are fused.
  DOVETAIL_INLINE void add(pack a, pack b) { sum = sum + (low(a) * low(b) + high(a) * high(b)); }
  double total() const { return sum[0] + sum[1]; }
#endif
};

}  // inline namespace
#endif

}  // namespace dovetail::simd
#include <dovetail/core/simd_double.inc.hpp>
namespace dovetail::simd {

/// The pack of numbers T.
template <class T>
struct pack_type {
  using type = pack;
};
template <>
struct pack_type<double> {
  using type = double_pack;
};
template <class T>
using pack_of = typename pack_type<T>::type;

/// How a loop uses a pack: its sums, and how many of them take turns, so that additions do not wait for each other.
template <>
struct loop_traits<pack> {
  using sum_type = product_sum;
  using mask = pack_mask;
  static constexpr int turns = 2;
};

#if DOVETAIL_X86_LEVELS && !defined(__AVX__)
}  // namespace dovetail::simd
#include <dovetail/core/simd_wide.inc.hpp>
namespace dovetail::simd {
#define DOVETAIL_WIDE_LOOPS 1
#else
#define DOVETAIL_WIDE_LOOPS 0
#endif

// ---- one element

DOVETAIL_INLINE constexpr float select(bool m, float a, float b) { return m ? a : b; }
DOVETAIL_INLINE float sqrt(float a) { return __builtin_sqrtf(a); }
DOVETAIL_INLINE float abs(float a) { return __builtin_fabsf(a); }
/// The smaller (larger) one; a NaN in the first argument stays.
DOVETAIL_INLINE constexpr float min(float a, float b) { return b < a ? b : a; }
DOVETAIL_INLINE constexpr float max(float a, float b) { return a < b ? b : a; }
/// -1 or 1; zeros and NaN stay what they are.
DOVETAIL_INLINE constexpr float sign(float a) { return a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : a; }
DOVETAIL_INLINE constexpr bool is_nan(float a) { return dovetail::is_nan(a); }
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
#if defined(__CUDACC__)
DOVETAIL_INLINE pack split(pack const& x, pack& mantissa) {
  return pack::each([&](int i) { return simd::split(x.v[i], mantissa.v[i]); });
}
DOVETAIL_INLINE pack whole(pack const& x) {
  return pack::each([&](int i) { return simd::whole(x.v[i]); });
}
DOVETAIL_INLINE pack two_to(pack const& n) {
  return pack::each([&](int i) { return simd::two_to(n.v[i]); });
}
#endif

// ---- dependencies

/// A result's set of inputs. `untouched` says that it still is a plain input.
struct tracer {
  std::uint64_t inputs = 0;
  bool untouched = false;

  constexpr tracer() = default;
  constexpr tracer(float) {}
  constexpr explicit tracer(std::uint64_t set) : inputs(set) {}
  static constexpr tracer input(int i) {
    tracer t(std::uint64_t{1} << i);
    t.untouched = true;
    return t;
  }

#define DOVETAIL_TRACE(op) \
  friend constexpr tracer operator op(tracer a, tracer b) { return tracer(a.inputs | b.inputs); }
  DOVETAIL_TRACE(+)
  DOVETAIL_TRACE(-)
  DOVETAIL_TRACE(*)
  DOVETAIL_TRACE(/)
  DOVETAIL_TRACE(<)
  DOVETAIL_TRACE(>)
  DOVETAIL_TRACE(<=)
  DOVETAIL_TRACE(>=)
  DOVETAIL_TRACE(==)
#undef DOVETAIL_TRACE
  friend constexpr tracer operator-(tracer a) { return tracer(a.inputs); }
};

constexpr tracer select(tracer m, tracer a, tracer b) { return tracer(m.inputs | a.inputs | b.inputs); }
constexpr tracer sqrt(tracer a) { return tracer(a.inputs); }
constexpr tracer abs(tracer a) { return tracer(a.inputs); }
constexpr tracer min(tracer a, tracer b) { return a + b; }
constexpr tracer max(tracer a, tracer b) { return a + b; }
constexpr tracer sign(tracer a) { return tracer(a.inputs); }
constexpr tracer is_nan(tracer a) { return tracer(a.inputs); }

}  // namespace dovetail::simd
