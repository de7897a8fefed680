// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: core/vectors.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own, and core/simd_pack.inc.hpp for the registers that the program is compiled for. DOVETAIL_VECTOR_LANES is the
// number of floats in a register. GCC takes vectors apart that are wider than what a function is compiled for, so
// everything is inlined, and into functions of the same region only.
//
// The few instructions without an operator go by their built-in functions, which GCC and Clang share: <immintrin.h>
// would cost each program 0.4 s of compiling.
#if defined(DOVETAIL_VECTOR_LANES)

constexpr int lanes = DOVETAIL_VECTOR_LANES;

// One register of floats or of integers as wide; of doubles half as many. Of shorter integers as many as of floats.
typedef float f32s __attribute__((vector_size(4 * lanes)));
typedef std::int32_t i32s __attribute__((vector_size(4 * lanes)));
typedef std::uint32_t u32s __attribute__((vector_size(4 * lanes)));
typedef double f64s __attribute__((vector_size(4 * lanes)));
typedef std::uint16_t u16s __attribute__((vector_size(2 * lanes)));
typedef std::uint8_t u8s __attribute__((vector_size(lanes)));

/// One register of any numbers.
template <class T>
struct register_type {
  typedef T type __attribute__((vector_size(4 * lanes)));
};
template <class T>
using register_of = typename register_type<T>::type;

/// What a comparison of vectors gives: integers of the same size, all bits set or none.
template <class V>
using mask = decltype(V{} < V{});

/// The same bits as another vector.
template <class To, class From>
DOVETAIL_HOST_INLINE To bits_as(From x) {
  return __builtin_bit_cast(To, x);
}

// Memory needs no alignment and may hold anything.
template <class V = f32s, class T>
DOVETAIL_HOST_INLINE V load(T const* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T, class V>
DOVETAIL_HOST_INLINE void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first n elements only; the others are 0.
template <class V = f32s, class T>
DOVETAIL_HOST_INLINE V load_part(T const* p, std::size_t n) {
  V v{};
  __builtin_memcpy(&v, p, n * sizeof v[0]);
  return v;
}
template <class T, class V>
DOVETAIL_HOST_INLINE void store_part(T* p, std::size_t n, V v) {
  __builtin_memcpy(p, &v, n * sizeof v[0]);
}

/// The same value, of which the compiler no longer knows where it comes from: it cannot fuse a product with the sum
/// behind it, nor reorder a sum or conclude that something is no NaN.
template <class V>
DOVETAIL_HOST_INLINE V hidden(V v) {
#if defined(__CUDA_ARCH__)
#elif defined(__SSE2__) && DOVETAIL_VECTOR_LANES == 16
  __asm__("" : "+v"(v));
#elif defined(__SSE2__)
  __asm__("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(v));
#else
  __asm__("" : "+m"(v));
#endif
  return v;
}

/// The bits of numbers. With -ffast-math those of a sum are known not to be a NaN's, unless it is hidden.
template <class V>
DOVETAIL_HOST_INLINE mask<V> bits_of(V v) {
  if constexpr (dovetail::detail::finite_only) v = hidden(v);
  return bits_as<mask<V>>(v);
}

/// m ? a : b, lane by lane.
template <class V>
DOVETAIL_HOST_INLINE V select(mask<V> m, V a, V b) {
  return bits_as<V>((bits_of(a) & m) | (bits_of(b) & ~m));
}

/// Which lanes are NaN, by their bits: v != v holds nowhere where the program is compiled with -ffast-math.
template <class V>
DOVETAIL_HOST_INLINE mask<V> is_nan(V v) {
  auto const bits = hidden(bits_as<mask<V>>(v));
  if constexpr (sizeof v[0] == 8)
    return (bits & 0x7fffffffffffffff) > 0x7ff0000000000000;
  else
    return (bits & 0x7fffffff) > 0x7f800000;
}

template <class V>
DOVETAIL_HOST_INLINE V abs(V v) {
  if constexpr (sizeof v[0] == 8)
    return bits_as<V>(bits_of(v) & 0x7fffffffffffffff);
  else
    return bits_as<V>(bits_of(v) & 0x7fffffff);
}

/// The smaller (larger) of two; a where either is NaN, or both are zeros.
template <class V>
DOVETAIL_HOST_INLINE V min(V a, V b) {
  return select(b < a, b, a);
}
template <class V>
DOVETAIL_HOST_INLINE V max(V a, V b) {
  return select(a < b, b, a);
}
// One instruction each, which gives its second operand in these cases.
#if defined(__SSE2__) && !defined(__CUDACC__) && DOVETAIL_VECTOR_LANES == 4
DOVETAIL_HOST_INLINE f32s min(f32s a, f32s b) { return __builtin_ia32_minps(b, a); }
DOVETAIL_HOST_INLINE f32s max(f32s a, f32s b) { return __builtin_ia32_maxps(b, a); }
DOVETAIL_HOST_INLINE f64s min(f64s a, f64s b) { return __builtin_ia32_minpd(b, a); }
DOVETAIL_HOST_INLINE f64s max(f64s a, f64s b) { return __builtin_ia32_maxpd(b, a); }
#elif defined(__SSE2__) && !defined(__CUDACC__) && DOVETAIL_VECTOR_LANES == 8
DOVETAIL_HOST_INLINE f32s min(f32s a, f32s b) { return __builtin_ia32_minps256(b, a); }
DOVETAIL_HOST_INLINE f32s max(f32s a, f32s b) { return __builtin_ia32_maxps256(b, a); }
DOVETAIL_HOST_INLINE f64s min(f64s a, f64s b) { return __builtin_ia32_minpd256(b, a); }
DOVETAIL_HOST_INLINE f64s max(f64s a, f64s b) { return __builtin_ia32_maxpd256(b, a); }
#endif

#endif
