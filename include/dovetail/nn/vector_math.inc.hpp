// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: vector_math.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own. No result depends on the level: no lane looks at another one, and no level has fused multiply-adds.
#if defined(DOVETAIL_NN_LEVEL)

using dovetail::detail::finite_only;

DOVETAIL_HOST_INLINE f32s broadcast(float f) { return f32s{} + f; }

/// `result`, but `value` in lanes where v is NaN. Comparisons with NaN are false, and layers count on it, but
/// -ffast-math lets a compiler ask for the opposite instead.
DOVETAIL_HOST_INLINE f32s for_nan(f32s v, f32s value, f32s result) {
  return finite_only ? select(is_nan(v), value, result) : result;
}

/// e^x = factor × 2^exponent within 2 ulp, for -87.4 < x < 88.8; a NaN's factor is NaN.
struct exponential {
  f32s factor;
  i32s exponent;
};
DOVETAIL_HOST_INLINE exponential split_exp(f32s x) {
  // x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 × 2^23 rounds to an integer that then sits in the low bits. What is
  // hidden here -ffast-math would reorder, so that nothing were rounded.
  constexpr float magic = 12582912.f;
  f32s const shifted = hidden(x * 1.44269504f + magic);
  f32s const n = hidden(shifted - magic);
  f32s const r = hidden(x - n * 0.693359375f) - n * -2.12194440e-4f;
  f32s p = r * 1.9875691500e-4f + 1.3981999507e-3f;  // minimax polynomial of Cephes' expf
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * r * r + r + 1.f, bits_of(shifted) - bits_of(broadcast(magic))};
}
DOVETAIL_HOST_INLINE f32s two_to(i32s n) { return bits_as<f32s>((n + 127) << 23); }

/// e^x within 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays NaN. Infinity is the largest float where -ffast-math
/// divides by way of reciprocals, of which that of infinity is NaN.
DOVETAIL_HOST_INLINE f32s exp(f32s x) {
  f32s const high = broadcast(88.72283f), low = broadcast(-87.33654f);
  auto const [factor, n] = split_exp(max(min(x, high), low));
  i32s const half = n >> 1;  // in two factors: n = 128 is beyond one exponent
  f32s const e = hidden(factor * two_to(half)) * two_to(n - half);
  return for_nan(
      x, x,
      select(x < low, f32s{}, select(x > high, bits_as<f32s>(i32s{} + (finite_only ? 0x7f7fffff : 0x7f800000)), e)));
}
/// The same, but that of ±87 beyond ±87: never 0 nor infinite.
DOVETAIL_HOST_INLINE f32s bounded_exp(f32s x) {
  auto const [factor, n] = split_exp(max(min(x, broadcast(87.f)), broadcast(-87.f)));
  return for_nan(x, x, factor * two_to(n));
}

/// 1 / (1 + e^-x), at least e^-87.
DOVETAIL_HOST_INLINE f32s sigmoid(f32s x) { return 1.f / (1.f + bounded_exp(-x)); }

/// tanh within 3 ulp: an odd polynomial (Cephes' tanhf) near zero, where 1 - 2/(e^2x + 1) would cancel.
DOVETAIL_HOST_INLINE f32s tanh(f32s x) {
  i32s const sign = bits_of(x) & (i32s{} + INT32_MIN);
  f32s const a = bits_as<f32s>(bits_of(x) ^ sign);
  f32s const s = x * x;
  f32s p = s * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * s + -5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s + -3.33332819422e-1f;
  p = p * s * x + x;
  f32s const large = 1.f - 2.f / (bounded_exp(a + a) + 1.f);
  return select(a < broadcast(0.625f), p, bits_as<f32s>(bits_of(large) | sign));
}

/// out[i] = f(in[i]…) for i in [0, n); out may be one of the inputs.
template <class F, class... In>
DOVETAIL_HOST_INLINE void map(std::size_t n, float* out, F f, In const*... in) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, f(load(in + i)...));
  if (i < n) store_part(out + i, n - i, f(load_part(in + i, n - i)...));
}

#endif
