// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: vector_math.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own. No result depends on the level: no lane looks at another one, and no level has fused multiply-adds.
#if defined(DOVETAIL_NN_LANES)

constexpr std::size_t lanes = DOVETAIL_NN_LANES;
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

/// The smaller (larger) of two; b where either is NaN.
DOVETAIL_INLINE pack lesser(pack a, pack b) {
#if !defined(__SSE2__) || defined(__CUDACC__)
  return select(a < b, a, b);
#elif DOVETAIL_NN_LANES == 8
  return __builtin_ia32_minps256(a, b);
#else
  return __builtin_ia32_minps(a, b);
#endif
}
DOVETAIL_INLINE pack greater(pack a, pack b) {
#if !defined(__SSE2__) || defined(__CUDACC__)
  return select(a > b, a, b);
#elif DOVETAIL_NN_LANES == 8
  return __builtin_ia32_maxps256(a, b);
#else
  return __builtin_ia32_maxps(a, b);
#endif
}

/// e^x = factor × 2^exponent within 2 ulp, for -87.4 < x < 88.8; a NaN's factor is NaN.
struct exponential {
  pack factor;
  pack_bits exponent;
};
DOVETAIL_INLINE exponential split_exp(pack x) {
  // x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 × 2^23 rounds to an integer that then sits in the low bits. What is
  // hidden here -ffast-math would reorder, so that nothing were rounded.
  constexpr float magic = 12582912.f;
  pack const shifted = hidden(x * 1.44269504f + magic);
  pack const n = hidden(shifted - magic);
  pack const r = hidden(x - n * 0.693359375f) - n * -2.12194440e-4f;
  pack p = r * 1.9875691500e-4f + 1.3981999507e-3f;  // minimax polynomial of Cephes' expf
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * r * r + r + 1.f, bits_of(shifted) - bits_of(broadcast(magic))};
}
DOVETAIL_INLINE pack two_to(pack_bits n) { return floats_of((n + 127) << 23); }

/// e^x within 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays NaN. Infinity is the largest float where -ffast-math
/// divides by way of reciprocals, of which that of infinity is NaN.
DOVETAIL_INLINE pack exp(pack x) {
  pack const high = broadcast(88.72283f), low = broadcast(-87.33654f);
  auto const [factor, n] = split_exp(greater(low, lesser(high, x)));
  pack_bits const half = n >> 1;  // in two factors: n = 128 is beyond one exponent
  pack const e = hidden(factor * two_to(half)) * two_to(n - half);
  return for_nan(
      x, x,
      select(x < low, pack{}, select(x > high, floats_of(pack_bits{} + (finite_only ? 0x7f7fffff : 0x7f800000)), e)));
}
/// The same, but that of ±87 beyond ±87: never 0 nor infinite.
DOVETAIL_INLINE pack bounded_exp(pack x) {
  auto const [factor, n] = split_exp(greater(broadcast(-87.f), lesser(broadcast(87.f), x)));
  return for_nan(x, x, factor * two_to(n));
}

/// 1 / (1 + e^-x), at least e^-87.
DOVETAIL_INLINE pack sigmoid(pack x) { return 1.f / (1.f + bounded_exp(-x)); }

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
  pack const large = 1.f - 2.f / (bounded_exp(a + a) + 1.f);
  return select(a < broadcast(0.625f), p, floats_of(bits_of(large) | sign));
}

/// out[i] = f(in[i]…) for i in [0, n); out may be one of the inputs.
template <class F, class... In>
DOVETAIL_INLINE void map(std::size_t n, float* out, F f, In const*... in) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, f(load(in + i)...));
  if (i < n) store_part(out + i, n - i, f(load_part(in + i, n - i)...));
}

#endif
