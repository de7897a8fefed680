// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's number type for one element on a device. Included by core/simd.hpp.

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/simd_number.hpp>

namespace dovetail::simd {

/// A float of which every operation is rounded by itself, as on the host: where a compiler may fuse a product and a
/// sum, it chooses anew in each kernel that it makes of a rule, and an element's bits would depend on its neighbors.
struct element {
  float v;

  element() = default;
  DOVETAIL_INLINE constexpr element(float x) : v(x) {}

#if defined(__CUDA_ARCH__)
#define DOVETAIL_ROUNDED(op, intrinsic) \
  DOVETAIL_INLINE friend element operator op(element a, element b) { return intrinsic(a.v, b.v); }
#else
#define DOVETAIL_ROUNDED(op, intrinsic) \
  DOVETAIL_INLINE friend element operator op(element a, element b) { return a.v op b.v; }
#endif
  DOVETAIL_ROUNDED(+, __fadd_rn)
  DOVETAIL_ROUNDED(-, __fsub_rn)
  DOVETAIL_ROUNDED(*, __fmul_rn)
  DOVETAIL_ROUNDED(/, __fdiv_rn)
#undef DOVETAIL_ROUNDED
#define DOVETAIL_COMPARED(op) \
  DOVETAIL_INLINE friend constexpr bool operator op(element a, element b) { return a.v op b.v; }
  DOVETAIL_COMPARED(<)
  DOVETAIL_COMPARED(>)
  DOVETAIL_COMPARED(<=)
  DOVETAIL_COMPARED(>=)
  DOVETAIL_COMPARED(==)
#undef DOVETAIL_COMPARED
  DOVETAIL_INLINE friend constexpr element operator-(element a) { return -a.v; }
};

DOVETAIL_INLINE constexpr element select(bool m, element a, element b) { return m ? a : b; }
DOVETAIL_INLINE element sqrt(element a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a.v);
#else
  return __builtin_sqrtf(a.v);
#endif
}
DOVETAIL_INLINE element abs(element a) { return __builtin_fabsf(a.v); }
DOVETAIL_INLINE constexpr element min(element a, element b) { return b < a ? b : a; }
DOVETAIL_INLINE constexpr element max(element a, element b) { return a < b ? b : a; }
DOVETAIL_INLINE constexpr element sign(element a) { return a.v > 0.0f ? 1.0f : a.v < 0.0f ? -1.0f : a.v; }
DOVETAIL_INLINE constexpr bool is_nan(element a) { return dovetail::is_nan(a.v); }
DOVETAIL_INLINE constexpr element split(element x, element& mantissa) { return simd::split(x.v, mantissa.v); }
DOVETAIL_INLINE constexpr element whole(element x) { return simd::whole(x.v); }
DOVETAIL_INLINE constexpr element two_to(element n) { return simd::two_to(n.v); }

}  // namespace dovetail::simd
