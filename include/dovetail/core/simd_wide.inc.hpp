// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's pack of 8 lanes for programs that are compiled for 4: what a loop uses that is compiled a second
// time, for AVX2, and taken where the processor has it. Included by core/simd.hpp only.
//
// A rule's functions are compiled for the program's own processor, and GCC takes wide vectors apart in such functions,
// even in those that it inlines into a loop for AVX2 afterwards. So the numbers lie in plain arrays, which may pass
// through any function, and only the operators are for AVX2: they are inlined where the loop has taken in all the
// rest. No fused multiply-add: every result has the bits that 4 lanes give.

#include <cstdint>

#include <dovetail/core/config.hpp>

#if defined(__clang__)  // which takes wide vectors apart last of all
#define DOVETAIL_WIDE DOVETAIL_INLINE
#else  // to be inlined, but only where its instructions are allowed
#define DOVETAIL_WIDE inline __attribute__((target("avx2")))
#endif

namespace dovetail::simd {
inline namespace lanes_4 {

struct wide_mask {
  typedef std::int32_t vector __attribute__((vector_size(32), aligned(4), may_alias));
  std::int32_t bits[8];
};

/// Two machine registers of 4 floats as one of 8.
struct wide {
  static constexpr int lanes = 8;
  typedef float vector __attribute__((vector_size(32), aligned(4), may_alias));
  float v[8];

  wide() = default;
  DOVETAIL_WIDE wide(float x) { as(*this) = x - vector{}; }
  DOVETAIL_WIDE wide(pack low, pack high) {
    as(*this) = __builtin_shufflevector(low.v, high.v, 0, 1, 2, 3, 4, 5, 6, 7);
  }
  DOVETAIL_WIDE static wide load(float const* p) {
    wide r;
    as(r) = *reinterpret_cast<vector const*>(p);
    return r;
  }
  DOVETAIL_WIDE void store(float* p) const { *reinterpret_cast<vector*>(p) = as(*this); }

#define DOVETAIL_ARITHMETIC(op) \
  DOVETAIL_WIDE friend wide operator op(wide const& a, wide const& b) { return made(as(a) op as(b)); }
#define DOVETAIL_COMPARISON(op) \
  DOVETAIL_WIDE friend wide_mask operator op(wide const& a, wide const& b) { return mask(as(a) op as(b)); }
  DOVETAIL_ARITHMETIC(+)
  DOVETAIL_ARITHMETIC(-)
  DOVETAIL_ARITHMETIC(*)
  DOVETAIL_ARITHMETIC(/)
  DOVETAIL_COMPARISON(<)
  DOVETAIL_COMPARISON(>)
  DOVETAIL_COMPARISON(<=)
  DOVETAIL_COMPARISON(>=)
  DOVETAIL_COMPARISON(==)
#undef DOVETAIL_ARITHMETIC
#undef DOVETAIL_COMPARISON
  DOVETAIL_WIDE friend wide operator-(wide const& a) { return made(-as(a)); }

  // References: a function that gave a vector of 8 would have another calling convention in each level.
  DOVETAIL_WIDE static vector& as(wide& a) { return *reinterpret_cast<vector*>(a.v); }
  DOVETAIL_WIDE static vector const& as(wide const& a) { return *reinterpret_cast<vector const*>(a.v); }
  DOVETAIL_WIDE static wide_mask::vector const& bits(wide const& a) {
    return *reinterpret_cast<wide_mask::vector const*>(a.v);
  }
  DOVETAIL_WIDE static wide_mask::vector const& bits(wide_mask const& m) {
    return *reinterpret_cast<wide_mask::vector const*>(m.bits);
  }
  DOVETAIL_WIDE static wide made(vector const& x) {
    wide r;
    as(r) = x;
    return r;
  }
  DOVETAIL_WIDE static wide made(wide_mask::vector const& x) {
    wide r;
    *reinterpret_cast<wide_mask::vector*>(r.v) = x;
    return r;
  }
  DOVETAIL_WIDE static wide_mask mask(wide_mask::vector const& x) {
    wide_mask m;
    *reinterpret_cast<wide_mask::vector*>(m.bits) = x;
    return m;
  }
};

DOVETAIL_WIDE wide select(wide_mask const& m, wide const& a, wide const& b) {
  auto const x = wide::bits(m);
  return wide::made((wide::bits(a) & x) | (wide::bits(b) & ~x));
}
DOVETAIL_WIDE wide keep(wide_mask const& m, wide const& a) { return wide::made(wide::bits(a) & wide::bits(m)); }
DOVETAIL_WIDE wide_mask is_nan(wide const& a) { return wide::mask((wide::bits(a) & 0x7fffffff) > 0x7f800000); }
DOVETAIL_WIDE wide sqrt(wide const& a) {
#if defined(__clang__)
  return wide::made(__builtin_elementwise_sqrt(wide::as(a)));
#else
  return wide::made(__builtin_ia32_sqrtps256(wide::as(a)));
#endif
}
DOVETAIL_WIDE wide abs(wide const& a) { return wide::made(wide::bits(a) & 0x7fffffff); }
DOVETAIL_WIDE wide min(wide const& a, wide const& b) {
#if defined(__clang__)
  return select(b < a, b, a);
#else
  return wide::made(__builtin_ia32_minps256(wide::as(b), wide::as(a)));
#endif
}
DOVETAIL_WIDE wide max(wide const& a, wide const& b) {
#if defined(__clang__)
  return select(a < b, b, a);
#else
  return wide::made(__builtin_ia32_maxps256(wide::as(b), wide::as(a)));
#endif
}
DOVETAIL_WIDE wide sign(wide const& a) {
  wide const one = 1.0f;
  auto const r = (wide::bits(a) & static_cast<std::int32_t>(0x80000000u)) | wide::bits(one);
  return select(abs(a) > 0.0f, wide::made(r), a);
}

DOVETAIL_WIDE wide split(wide const& x, wide& mantissa) {
  auto const exponent = (wide::bits(x) - 0x3f2aaaab) >> 23;
  mantissa = wide::made(wide::bits(x) - (exponent << 23));
  return wide::made(__builtin_convertvector(exponent, wide::vector));
}
DOVETAIL_WIDE wide whole(wide const& x) {
  auto const n = __builtin_convertvector(wide::as(x), wide_mask::vector);
  return wide::made(__builtin_convertvector(n, wide::vector));
}
DOVETAIL_WIDE wide two_to(wide const& n) {
  return wide::made((__builtin_convertvector(wide::as(n), wide_mask::vector) + 127) << 23);
}

/// The two sums of 4 lanes that take turns, at once.
struct wide_product_sum {
  typedef double vector __attribute__((vector_size(32), aligned(8), may_alias));
  double sum[4] = {};
  typedef float half __attribute__((vector_size(16), aligned(4), may_alias));
  DOVETAIL_WIDE void add(wide const& a, wide const& b) {
#if defined(__clang__)
#define DOVETAIL_DOUBLES(p) __builtin_convertvector(*reinterpret_cast<half const*>(p), vector)
#else
#define DOVETAIL_DOUBLES(p) __builtin_ia32_cvtps2pd256(*reinterpret_cast<half const*>(p))
#endif
    auto const low = DOVETAIL_DOUBLES(a.v) * DOVETAIL_DOUBLES(b.v),
               high = DOVETAIL_DOUBLES(a.v + 4) * DOVETAIL_DOUBLES(b.v + 4);
    *reinterpret_cast<vector*>(sum) +=
        __builtin_shufflevector(low, high, 0, 1, 4, 5) + __builtin_shufflevector(low, high, 2, 3, 6, 7);
#undef DOVETAIL_DOUBLES
  }
  double total() const { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }
};

}  // namespace lanes_4

template <>
struct loop_traits<wide> {
  using sum_type = wide_product_sum;
  using mask = wide_mask;
  static constexpr int turns = 1;
};

}  // namespace dovetail::simd
