// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: kernels.hpp includes this file once per cpu_level, in a namespace and a target region of its own.
// Everything here is written in vectors of `lanes` floats; only masks, half conversions and compaction differ by level.
// The few instructions without an operator go by their built-in functions, which GCC and Clang share: <immintrin.h>
// would cost each program 0.4 s of compiling.
// Nothing rounds differently from level to level: products are rounded before they are added, and sums have 16 lanes.
#if defined(DOVETAIL_KERNEL_LEVEL)

constexpr int lanes = 4 << DOVETAIL_KERNEL_LEVEL;  // 4, 8, 16
typedef float vf __attribute__((vector_size(4 * lanes)));
typedef std::int32_t vi __attribute__((vector_size(4 * lanes)));
typedef std::uint32_t vu __attribute__((vector_size(4 * lanes)));
typedef std::uint16_t vh __attribute__((vector_size(2 * lanes)));
typedef short vs __attribute__((vector_size(2 * lanes)));
constexpr std::int32_t magnitude_bits = 0x7fffffff;
// Operands of the instructions below.
constexpr int to_nearest_even = 0, current_rounding = 4, not_less = 5;
constexpr unsigned short all_lanes = 0xffff;

template <class To, class From>
DOVETAIL_HOST_INLINE To load(From const* p) {
  To v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class To>
DOVETAIL_HOST_INLINE void store(To* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// One core alone does not ask for enough memory in time; asking 8 KB ahead is worth a fifth. It cannot fault.
DOVETAIL_HOST_INLINE void ahead(void const* p) { __builtin_prefetch(static_cast<char const*>(p) + 8192); }

// Keeps the compiler from fusing a product with the addition that follows it: fused levels would differ from others.
DOVETAIL_HOST_INLINE vf rounded(vf v) {
#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
  __asm__("" : "+v"(v));
#elif DOVETAIL_X86_LEVELS
  __asm__("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(v));
#else
  __asm__("" : "+m"(v));
#endif
  return v;
}

#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
// The 16 bits of a mask register. GCC 12 may store them to the stack and read 32 there, or hold the result of the
// conversion in the mask register and do the same with that: what is behind them is cut off here, where GCC no longer
// knows that nothing can be there.
DOVETAIL_HOST_INLINE unsigned bits_of(unsigned short mask) {
  unsigned bits = mask;
  __asm__("" : "+r"(bits));
  return bits & 0xffffu;
}
#endif

// The sign bits of the lanes.
DOVETAIL_HOST_INLINE unsigned mask_of(vi v) {
#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
  return bits_of(__builtin_ia32_cvtd2mask512(v));
#elif DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 1
  return static_cast<unsigned>(__builtin_ia32_movmskps256(reinterpret_cast<vf>(v)));
#elif DOVETAIL_X86_LEVELS
  return static_cast<unsigned>(__builtin_ia32_movmskps(reinterpret_cast<vf>(v)));
#else
  unsigned m = 0;
  for (int j = 0; j < lanes; ++j) m |= static_cast<unsigned>(v[j] < 0) << j;
  return m;
#endif
}

DOVETAIL_HOST_INLINE vh fp16_from(vf x) {
#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
  return reinterpret_cast<vh>(__builtin_ia32_vcvtps2ph512_mask(x, to_nearest_even, vs{}, all_lanes));
#elif DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 1
  return reinterpret_cast<vh>(__builtin_ia32_vcvtps2ph256(x, to_nearest_even));
#else  // dovetail::fp16's conversion, lane by lane the same
  vu const u = reinterpret_cast<vu>(x), a = u & 0x7fffffffu;
  vi const size = reinterpret_cast<vi>(a);  // compared as signed: SSE2 knows nothing else
  vu const normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  vu const tiny = reinterpret_cast<vu>(reinterpret_cast<vf>(a) + 0.5f) - 0x3f000000u;
  vu const nan = 0x7e00u | ((a >> 13) & 0x3ffu);
  vu h = size < 0x38800000 ? tiny : normal;
  h = size >= 0x477ff000 ? vu{} + 0x7c00u : h;
  h = size > 0x7f800000 ? nan : h;
  return __builtin_convertvector(h | ((u >> 16) & 0x8000u), vh);
#endif
}
DOVETAIL_HOST_INLINE vf fp16_to_float(vh h16) {
#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
  return __builtin_ia32_vcvtph2ps512_mask(reinterpret_cast<vs>(h16), vf{}, all_lanes, current_rounding);
#elif DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 1
  return __builtin_ia32_vcvtph2ps256(reinterpret_cast<vs>(h16));
#else
  vi const h = reinterpret_cast<vi>(__builtin_convertvector(h16, vu));
  vi const a = h & 0x7fff, sign = (h & 0x8000) << 16;
  vi const tiny = reinterpret_cast<vi>(__builtin_convertvector(a, vf) * 0x1p-24f);
  vi f = a < 0x400 ? tiny : (a << 13) + 0x38000000;
  f = a >= 0x7c00 ? (a << 13) | 0x7f800000 : f;
  return reinterpret_cast<vf>(f | sign);
#endif
}
DOVETAIL_HOST_INLINE vh bf16_from(vf x) {
  vu const u = reinterpret_cast<vu>(x);
  vu const even = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  vu const h = reinterpret_cast<vi>(u & 0x7fffffffu) > 0x7f800000 ? (u >> 16) | 0x40u : even;
  return __builtin_convertvector(h, vh);
}
DOVETAIL_HOST_INLINE vf bf16_to_float(vh h) { return reinterpret_cast<vf>(__builtin_convertvector(h, vu) << 16); }

// One function body for both half types; a tail shorter than a vector goes through padded memory.
#define DOVETAIL_HALF_KERNELS(half)                                                                \
  inline void to_##half(float const* x, std::size_t n, std::byte* out) {                           \
    std::size_t i = 0;                                                                             \
    for (; i + lanes <= n; i += lanes) {                                                           \
      ahead(x + i);                                                                                \
      store(out + 2 * i, half##_from(load<vf>(x + i)));                                            \
    }                                                                                              \
    if (i == n) return;                                                                            \
    vf rest{};                                                                                     \
    __builtin_memcpy(&rest, x + i, 4 * (n - i));                                                   \
    vh const h = half##_from(rest);                                                                \
    __builtin_memcpy(out + 2 * i, &h, 2 * (n - i));                                                \
  }                                                                                                \
  inline void add_##half(std::byte const* in, std::size_t n, float weight, float* out) {           \
    std::size_t i = 0;                                                                             \
    for (; i + lanes <= n; i += lanes) {                                                           \
      ahead(out + i);                                                                              \
      store(out + i, load<vf>(out + i) + rounded(weight * half##_to_float(load<vh>(in + 2 * i)))); \
    }                                                                                              \
    if (i == n) return;                                                                            \
    vh rest{};                                                                                     \
    vf sum{};                                                                                      \
    __builtin_memcpy(&rest, in + 2 * i, 2 * (n - i));                                              \
    __builtin_memcpy(&sum, out + i, 4 * (n - i));                                                  \
    sum += rounded(weight * half##_to_float(rest));                                                \
    __builtin_memcpy(out + i, &sum, 4 * (n - i));                                                  \
  }
DOVETAIL_HALF_KERNELS(fp16)
DOVETAIL_HALF_KERNELS(bf16)
#undef DOVETAIL_HALF_KERNELS

inline void add_float(std::byte const* in, std::size_t n, float weight, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    ahead(in + 4 * i);
    ahead(out + i);
    store(out + i, load<vf>(out + i) + rounded(weight * load<vf>(in + 4 * i)));
  }
  if (i == n) return;
  vf rest{}, sum{};
  __builtin_memcpy(&rest, in + 4 * i, 4 * (n - i));
  __builtin_memcpy(&sum, out + i, 4 * (n - i));
  sum += rounded(weight * rest);
  __builtin_memcpy(out + i, &sum, 4 * (n - i));
}

inline bool all_finite(float const* x, std::size_t n) {
  std::size_t i = 0;
  vi bad{};
  // Checked now and then, so that a bucket full of NaN does not have to be read to its end.
  while (i + lanes <= n) {
    std::size_t const stop = n - i < 4096 ? n : i + 4096;
    for (; i + lanes <= stop; i += lanes) {
      ahead(x + i);
      bad |= (load<vi>(x + i) & magnitude_bits) >= 0x7f800000;
    }
    if (mask_of(bad)) return false;
  }
  vi rest{};
  if (i < n) __builtin_memcpy(&rest, x + i, 4 * (n - i));
  return mask_of((rest & magnitude_bits) >= 0x7f800000) == 0;
}

// 16 signs, 1 = negative. A zero has no sign to send: its bit alternates with the position, so that zeros cancel.
DOVETAIL_HOST_INLINE unsigned signs16(float const* x) {
  unsigned negative = 0, zero = 0;
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += lanes) {
    vf const v = load<vf>(x + j);
    negative |= mask_of(reinterpret_cast<vi>(v)) << j;
    zero |= mask_of(v == 0.0f) << j;
  }
  return (negative & ~zero) | (zero & 0xaaaau);
}
DOVETAIL_HOST_INLINE vf magnitude(float const* x) { return reinterpret_cast<vf>(load<vi>(x) & magnitude_bits); }

// Writes ceil(n/8) bytes of signs, padded with zero bits, and returns the sum of the magnitudes: 16 interleaved fp32
// sums over at most 4096 elements, then double.
inline double to_signs(float const* x, std::size_t n, std::byte* bits) {
  double total = 0;
  std::size_t i = 0;
  while (i < n) {
    std::size_t const stop = n - i < 4096 ? n : i + 4096;
    vf a0{}, a1{}, a2{}, a3{};
    for (; i < stop; i += 16) {
      float padded[16] = {};
      float const* p = x + i;
      ahead(p);
      std::size_t bytes = 2;
      if (stop - i < 16) {
        __builtin_memcpy(padded, p, 4 * (stop - i));
        p = padded;
        bytes = (stop - i + 7) / 8;
      }
      a0 += magnitude(p);
      if constexpr (lanes <= 8) a1 += magnitude(p + lanes);
      if constexpr (lanes <= 4) {
        a2 += magnitude(p + 2 * lanes);
        a3 += magnitude(p + 3 * lanes);
      }
      unsigned m = signs16(p);
      if (stop - i < 16) m &= (1u << (stop - i)) - 1;
      std::uint8_t const two[2] = {static_cast<std::uint8_t>(m), static_cast<std::uint8_t>(m >> 8)};
      if (bytes == 2)
        __builtin_memcpy(bits + i / 8, two, 2);
      else
        __builtin_memcpy(bits + i / 8, two, 1);
    }
    float sums[16];
    store(sums, a0);
    if constexpr (lanes <= 8) store(sums + lanes, a1);
    if constexpr (lanes <= 4) {
      store(sums + 8, a2);
      store(sums + 12, a3);
    }
    for (float const s : sums) total += static_cast<double>(s);
  }
  return total;
}

// out[i] += value or -value.
inline void add_signs(std::byte const* bits, std::size_t n, float value, float* out) {
  vi bit{};
  for (int j = 0; j < lanes; ++j) bit[j] = 1 << j;
  vi const plus = reinterpret_cast<vi>(vf{} + value);
  for (std::size_t i = 0; i < n; i += 16) {
    std::size_t const left = n - i;
    std::uint8_t two[2] = {};
    __builtin_memcpy(two, bits + i / 8, left > 8 ? 2 : 1);
    int const m = two[0] | (two[1] << 8);
    float padded[16];
    float* p = out + i;
    ahead(p);
    if (left < 16) {
      __builtin_memset(padded, 0, sizeof padded);
      __builtin_memcpy(padded, p, 4 * left);
      p = padded;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += lanes) {
      vi const negative = ((vi{} + (m >> j)) & bit) != 0;
      vi const flip = negative & static_cast<std::int32_t>(0x80000000u);
      store(p + j, load<vf>(p + j) + reinterpret_cast<vf>(plus ^ flip));
    }
    if (left < 16) __builtin_memcpy(out + i, padded, 4 * left);
  }
}

// Appends (first + i, bits of x[i]) for all i with |x[i]| >= `least`, compared as integers, so that NaN is largest.
// `indices` and `values` have room for n + 16. With `residual`, x is residual + gradient, and stays in residual.
DOVETAIL_HOST_INLINE std::size_t compact_any(float const* gradient, float* residual, bool sum, std::size_t n,
                                             std::int32_t least, std::uint32_t first, std::uint32_t* indices,
                                             std::uint32_t* values) {
  std::size_t i = 0, count = 0;
#if DOVETAIL_X86_LEVELS && DOVETAIL_KERNEL_LEVEL == 2
  vu index;
  for (std::uint32_t j = 0; j < 16; ++j) index[j] = first + j;
  vi const bound = vi{} + least;
  for (; i + 16 <= n; i += 16) {
    vf x = load<vf>(gradient + i);
    ahead(gradient + i);
    if (sum) {
      ahead(residual + i);
      x += load<vf>(residual + i);
      store(residual + i, x);
    }
    vi const bits = reinterpret_cast<vi>(x);
    unsigned short const m = __builtin_ia32_cmpd512_mask(bits & magnitude_bits, bound, not_less, all_lanes);
    store(indices + count, __builtin_ia32_compresssi512_mask(reinterpret_cast<vi>(index), vi{}, m));
    store(values + count, __builtin_ia32_compresssi512_mask(bits, vi{}, m));
    count += static_cast<std::size_t>(__builtin_popcount(bits_of(m)));
    index += 16u;
  }
#else
  for (; i + 16 <= n; i += 16) {
    unsigned m = 0;
    ahead(gradient + i);
    if (sum) ahead(residual + i);
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += lanes) {
      vf x = load<vf>(gradient + i + j);
      if (sum) {
        x += load<vf>(residual + i + j);
        store(residual + i + j, x);
      }
      m |= mask_of((reinterpret_cast<vi>(x) & magnitude_bits) >= least) << j;
    }
    float const* const x = sum ? residual : gradient;
    for (; m; m &= m - 1, ++count) {
      std::size_t const at = i + static_cast<std::size_t>(__builtin_ctz(m));
      indices[count] = first + static_cast<std::uint32_t>(at);
      __builtin_memcpy(values + count, x + at, 4);
    }
  }
#endif
  for (; i < n; ++i) {
    float x = gradient[i];
    if (sum) residual[i] = x = residual[i] + x;
    std::uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    indices[count] = first + static_cast<std::uint32_t>(i);
    values[count] = bits;
    count += static_cast<std::int32_t>(bits & 0x7fffffffu) >= least;
  }
  return count;
}
inline std::size_t compact(float const* x, std::size_t n, std::int32_t least, std::uint32_t first,
                           std::uint32_t* indices, std::uint32_t* values) {
  return compact_any(x, nullptr, false, n, least, first, indices, values);
}
inline std::size_t add_compact(float const* gradient, float* residual, std::size_t n, std::int32_t least,
                               std::uint32_t first, std::uint32_t* indices, std::uint32_t* values) {
  return compact_any(gradient, residual, true, n, least, first, indices, values);
}

#endif
