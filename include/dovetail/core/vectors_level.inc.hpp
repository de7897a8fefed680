// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: core/vectors.hpp includes this file once per cpu_level, behind core/vectors.inc.hpp: what only
// kernels use, and what has instructions that a level names and a program's own flags may not allow.
#if defined(DOVETAIL_VECTOR_LANES)

#if DOVETAIL_VECTOR_LANES == 16
/// The 16 bits of a mask register. GCC 12 may store them to the stack and read 32 there, or hold the result of the
/// conversion in the mask register and do the same with that: what is behind them is cut off here, where GCC no longer
/// knows that nothing can be there.
DOVETAIL_HOST_INLINE unsigned mask_bits(unsigned short m) {
  unsigned bits = m;
  __asm__("" : "+r"(bits));
  return bits & 0xffffu;
}
#endif

/// The sign bits of the lanes.
DOVETAIL_HOST_INLINE unsigned mask_of(i32s v) {
#if DOVETAIL_VECTOR_LANES == 16
  return mask_bits(__builtin_ia32_cvtd2mask512(v));
#elif DOVETAIL_VECTOR_LANES == 8
  return static_cast<unsigned>(__builtin_ia32_movmskps256(bits_as<f32s>(v)));
#elif defined(__SSE2__) && !defined(__CUDACC__)
  return static_cast<unsigned>(__builtin_ia32_movmskps(bits_as<f32s>(v)));
#else
  unsigned m = 0;
  for (int j = 0; j < lanes; ++j) m |= static_cast<unsigned>(v[j] < 0) << j;
  return m;
#endif
}

// Between 8 and 32 bits in wide registers by way of 16: GCC takes a conversion in one step apart into elements.
DOVETAIL_HOST_INLINE u32s widened(u8s x) {
#if DOVETAIL_VECTOR_LANES > 4
  return __builtin_convertvector(__builtin_convertvector(x, u16s), u32s);
#else
  return __builtin_convertvector(x, u32s);
#endif
}
DOVETAIL_HOST_INLINE u8s narrowed(u32s x) {
#if DOVETAIL_VECTOR_LANES > 4
  return __builtin_convertvector(__builtin_convertvector(x, u16s), u8s);
#else
  return __builtin_convertvector(x, u8s);
#endif
}

// The conversions of core/half.hpp, lane by lane the same bits.
#if DOVETAIL_VECTOR_LANES > 4
typedef short shorts __attribute__((vector_size(2 * lanes)));
constexpr int to_nearest_even = 0, current_rounding = 4;
constexpr unsigned short all_lanes = 0xffff;
#endif
DOVETAIL_HOST_INLINE u16s fp16_from(f32s x) {
#if DOVETAIL_VECTOR_LANES == 16
  return bits_as<u16s>(__builtin_ia32_vcvtps2ph512_mask(x, to_nearest_even, shorts{}, all_lanes));
#elif DOVETAIL_VECTOR_LANES == 8
  return bits_as<u16s>(__builtin_ia32_vcvtps2ph256(x, to_nearest_even));
#else
  u32s const u = bits_as<u32s>(x), a = u & 0x7fffffffu;
  i32s const size = bits_as<i32s>(a);  // compared as signed: SSE2 knows nothing else
  u32s const normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  u32s const tiny = bits_as<u32s>(bits_as<f32s>(a) + 0.5f) - 0x3f000000u;
  u32s const nan = 0x7e00u | ((a >> 13) & 0x3ffu);
  u32s h = size < 0x38800000 ? tiny : normal;
  h = size >= 0x477ff000 ? u32s{} + 0x7c00u : h;
  h = size > 0x7f800000 ? nan : h;
  return __builtin_convertvector(h | ((u >> 16) & 0x8000u), u16s);
#endif
}
DOVETAIL_HOST_INLINE f32s fp16_to_float(u16s half) {
#if DOVETAIL_VECTOR_LANES == 16
  return __builtin_ia32_vcvtph2ps512_mask(bits_as<shorts>(half), f32s{}, all_lanes, current_rounding);
#elif DOVETAIL_VECTOR_LANES == 8
  return __builtin_ia32_vcvtph2ps256(bits_as<shorts>(half));
#else
  i32s const h = bits_as<i32s>(__builtin_convertvector(half, u32s));
  i32s const a = h & 0x7fff, sign = (h & 0x8000) << 16;
  i32s const tiny = bits_as<i32s>(__builtin_convertvector(a, f32s) * 0x1p-24f);
  i32s f = a < 0x400 ? tiny : (a << 13) + 0x38000000;
  f = a >= 0x7c00 ? (a << 13) | 0x7f800000 : f;
  return bits_as<f32s>(f | sign);
#endif
}
DOVETAIL_HOST_INLINE u16s bf16_from(f32s x) {
  u32s const u = bits_as<u32s>(x);
  u32s const even = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  u32s const h = bits_as<i32s>(u & 0x7fffffffu) > 0x7f800000 ? (u >> 16) | 0x40u : even;
  return __builtin_convertvector(h, u16s);
}
DOVETAIL_HOST_INLINE f32s bf16_to_float(u16s h) { return bits_as<f32s>(__builtin_convertvector(h, u32s) << 16); }

#endif
