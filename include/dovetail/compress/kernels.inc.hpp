// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: kernels.hpp includes this file once per cpu_level, in a namespace and a target region of its own.
// Everything here is written in vectors of `lanes` floats (core/vectors.hpp); only compaction differs by level.
// Nothing rounds differently from level to level: products are rounded before they are added, and sums have 16 lanes.
#if defined(DOVETAIL_KERNEL_LANES)

constexpr std::int32_t magnitude_bits = 0x7fffffff;

// One core alone does not ask for enough memory in time; asking 8 KB ahead is worth a fifth. It cannot fault.
DOVETAIL_HOST_INLINE void ahead(void const* p) { __builtin_prefetch(static_cast<char const*>(p) + 8192); }
// Of what is written and not read: a core reads the line all the same, and later.
DOVETAIL_HOST_INLINE void ahead_to_write(void* p) { __builtin_prefetch(static_cast<char*>(p) + 1024, 1); }

// Hidden, because a level with fused multiply-adds would differ from others.
DOVETAIL_HOST_INLINE f32s product(float weight, f32s x) { return hidden(weight * x); }

// One function body for both half types; a tail shorter than a vector goes through padded memory.
#define DOVETAIL_HALF_KERNELS(half)                                                             \
  inline void to_##half(float const* x, std::size_t n, std::byte* out) {                        \
    std::size_t i = 0;                                                                          \
    for (; i + lanes <= n; i += lanes) {                                                        \
      ahead(x + i);                                                                             \
      store(out + 2 * i, half##_from(load(x + i)));                                             \
    }                                                                                           \
    if (i < n) store_part(out + 2 * i, n - i, half##_from(load_part(x + i, n - i)));            \
  }                                                                                             \
  inline void add_##half(std::byte const* in, std::size_t n, float weight, float* out) {        \
    std::size_t i = 0;                                                                          \
    for (; i + lanes <= n; i += lanes) {                                                        \
      ahead(out + i);                                                                           \
      store(out + i, load(out + i) + product(weight, half##_to_float(load<u16s>(in + 2 * i)))); \
    }                                                                                           \
    if (i == n) return;                                                                         \
    f32s const added = product(weight, half##_to_float(load_part<u16s>(in + 2 * i, n - i)));    \
    store_part(out + i, n - i, load_part(out + i, n - i) + added);                              \
  }
DOVETAIL_HALF_KERNELS(fp16)
DOVETAIL_HALF_KERNELS(bf16)
#undef DOVETAIL_HALF_KERNELS

inline void add_float(std::byte const* in, std::size_t n, float weight, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    ahead(in + 4 * i);
    ahead(out + i);
    store(out + i, load(out + i) + product(weight, load(in + 4 * i)));
  }
  if (i == n) return;
  f32s const added = product(weight, load_part(in + 4 * i, n - i));
  store_part(out + i, n - i, load_part(out + i, n - i) + added);
}

inline void add_to(float const* a, float const* b, std::size_t n, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    ahead(a + i);
    ahead(b + i);
    ahead_to_write(out + i);
    store(out + i, load(b + i) + load(a + i));
  }
  for (; i < n; ++i) out[i] = b[i] + a[i];
}

inline bool all_finite(float const* x, std::size_t n) {
  std::size_t i = 0;
  i32s bad{};
  // Checked now and then, so that a bucket full of NaN does not have to be read to its end.
  while (i + lanes <= n) {
    std::size_t const stop = n - i < 4096 ? n : i + 4096;
    for (; i + lanes <= stop; i += lanes) {
      ahead(x + i);
      bad |= (load<i32s>(x + i) & magnitude_bits) >= 0x7f800000;
    }
    if (mask_of(bad)) return false;
  }
  if (i == n) return true;  // also where there is no memory
  i32s const rest = load_part<i32s>(x + i, n - i);
  return mask_of((rest & magnitude_bits) >= 0x7f800000) == 0;
}

// 16 signs, 1 = negative. A zero has no sign to send: its bit alternates with the position, so that zeros cancel.
DOVETAIL_HOST_INLINE unsigned signs16(float const* x) {
  unsigned negative = 0, zero = 0;
  DOVETAIL_UNROLL_4
  for (int j = 0; j < 16; j += lanes) {
    f32s const v = load(x + j);
    negative |= mask_of(bits_as<i32s>(v)) << j;
    zero |= mask_of(v == 0.0f) << j;
  }
  return (negative & ~zero) | (zero & 0xaaaau);
}

// Writes ceil(n/8) bytes of signs, padded with zero bits, and returns the sum of the magnitudes (chunk_sums.hpp);
// where that is not finite, chunk_sums.hpp has another function to find it.
inline double to_signs(float const* x, std::size_t n, std::byte* bits) {
  detail::chunk_sums total;
  std::size_t i = 0;
  while (i < n) {
    std::size_t const stop = n - i < detail::sum_chunk ? n : i + detail::sum_chunk;
    f32s a0{}, a1{}, a2{}, a3{};
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
      a0 += abs(load(p));
      if constexpr (lanes <= 8) a1 += abs(load(p + lanes));
      if constexpr (lanes <= 4) {
        a2 += abs(load(p + 2 * lanes));
        a3 += abs(load(p + 3 * lanes));
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
    double chunk = 0;
    for (float const s : sums) chunk += static_cast<double>(s);
    if (n <= detail::sum_chunk) return chunk;
    total.add(chunk);
  }
  return total.total();
}

// out[i] += value or -value.
inline void add_signs(std::byte const* bits, std::size_t n, float value, float* out) {
  i32s bit{};
  for (int j = 0; j < lanes; ++j) bit[j] = 1 << j;
  i32s const plus = bits_as<i32s>(f32s{} + value);
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
    DOVETAIL_UNROLL_4
    for (int j = 0; j < 16; j += lanes) {
      i32s const negative = ((i32s{} + (m >> j)) & bit) != 0;
      i32s const flip = negative & static_cast<std::int32_t>(0x80000000u);
      store(p + j, load(p + j) + bits_as<f32s>(plus ^ flip));
    }
    if (left < 16) __builtin_memcpy(out + i, padded, 4 * left);
  }
}

// Appends (first + i, bits of x[i]) for all i with |x[i]| >= `least`, compared as integers, so that NaN is largest.
// `indices` and `values` have room for n + 16. With `adds`, x is residual + gradient, which `sum` becomes.
DOVETAIL_HOST_INLINE std::size_t compact_any(float const* gradient, float const* residual, float* sum, bool adds,
                                             std::size_t n, std::int32_t least, std::uint32_t first,
                                             std::uint32_t* indices, std::uint32_t* values) {
  std::size_t i = 0, count = 0;
#if DOVETAIL_KERNEL_LANES == 16
  u32s index;
  for (std::uint32_t j = 0; j < 16; ++j) index[j] = first + j;
  i32s const bound = i32s{} + least;
  constexpr int not_less = 5;
  for (; i + 16 <= n; i += 16) {
    f32s x = load(gradient + i);
    ahead(gradient + i);
    if (adds) {
      ahead(residual + i);
      ahead_to_write(sum + i);
      x += load(residual + i);
      store(sum + i, x);
    }
    i32s const bits = bits_as<i32s>(x);
    unsigned short const m = __builtin_ia32_cmpd512_mask(bits & magnitude_bits, bound, not_less, all_lanes);
    store(indices + count, __builtin_ia32_compresssi512_mask(bits_as<i32s>(index), i32s{}, m));
    store(values + count, __builtin_ia32_compresssi512_mask(bits, i32s{}, m));
    count += static_cast<std::size_t>(__builtin_popcount(mask_bits(m)));
    index += 16u;
  }
#else
  for (; i + 16 <= n; i += 16) {
    unsigned m = 0;
    ahead(gradient + i);
    if (adds) {
      ahead(residual + i);
      ahead_to_write(sum + i);
    }
    DOVETAIL_UNROLL_4
    for (int j = 0; j < 16; j += lanes) {
      f32s x = load(gradient + i + j);
      if (adds) {
        x += load(residual + i + j);
        store(sum + i + j, x);
      }
      m |= mask_of((bits_as<i32s>(x) & magnitude_bits) >= least) << j;
    }
    float const* const x = adds ? sum : gradient;
    for (; m; m &= m - 1, ++count) {
      std::size_t const at = i + static_cast<std::size_t>(__builtin_ctz(m));
      indices[count] = first + static_cast<std::uint32_t>(at);
      __builtin_memcpy(values + count, x + at, 4);
    }
  }
#endif
  for (; i < n; ++i) {
    float x = gradient[i];
    if (adds) sum[i] = x = residual[i] + x;
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
  return compact_any(x, nullptr, nullptr, false, n, least, first, indices, values);
}
inline std::size_t add_compact(float const* gradient, float const* residual, float* sum, std::size_t n,
                               std::int32_t least, std::uint32_t first, std::uint32_t* indices, std::uint32_t* values) {
  return compact_any(gradient, residual, sum, true, n, least, first, indices, values);
}

#endif
