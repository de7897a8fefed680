// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: quantize_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of
// its own. Vectors of `lanes` floats (core/vectors.hpp); every level gives the same bits.
#if defined(DOVETAIL_KERNEL_LANES)

// Asking 8 KB ahead of what is read, as kernels.inc.hpp does.
DOVETAIL_HOST_INLINE void ahead(void const* p) { __builtin_prefetch(static_cast<char const*>(p) + 8192); }

// element_random, for the elements of all lanes.
struct random_lanes {
  u32s counted;
  std::uint32_t low, high;
  DOVETAIL_HOST_INLINE random_lanes(element_random const& key, std::uint32_t first)
      : counted(u32s{} + (first + key.start) * 0x9E3779B9u), low(key.middle), high(key.end) {
    for (int i = 0; i < lanes; ++i) counted[i] += static_cast<std::uint32_t>(i) * 0x9E3779B9u;
  }
  DOVETAIL_HOST_INLINE u32s next() {
    u32s h = counted;
    counted += static_cast<std::uint32_t>(lanes) * 0x9E3779B9u;
    h = ((h ^ (h >> 16)) * 0x85EBCA6Bu) ^ low;
    h = ((h ^ (h >> 13)) * 0xC2B2AE35u) + high;
    return h ^ (h >> 16);
  }
};
DOVETAIL_HOST_INLINE f32s uniform_from(u32s h) {
  return __builtin_convertvector(bits_as<i32s>(h >> 8), f32s) * 0x1p-24f;
}

// The bits of the largest magnitude: as integers, so that NaN is largest, infinity next.
inline std::int32_t largest_magnitude(float const* x, std::size_t n) {
  i32s a{}, b{};
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    ahead(x + i);
    i32s const u = load<i32s>(x + i) & 0x7fffffff, v = load<i32s>(x + i + lanes) & 0x7fffffff;
    a = u > a ? u : a;
    b = v > b ? v : b;
  }
  a = b > a ? b : a;
  std::int32_t most = 0;
  for (int j = 0; j < lanes; ++j) most = a[j] > most ? a[j] : most;
  for (; i < n; ++i) {
    std::int32_t u;
    __builtin_memcpy(&u, x + i, 4);
    u &= 0x7fffffff;
    most = u > most ? u : most;
  }
  return most;
}

// Of squares, or of magnitudes, in the order of chunk_sums.hpp; `scale` keeps sums from overflowing.
template <bool Squares>
inline double sum_powers(float const* x, std::size_t n, float scale) {
  detail::chunk_sums total;
  for (std::size_t at = 0; at < n; at += detail::sum_chunk) {
    std::size_t const stop = n - at < detail::sum_chunk ? n : at + detail::sum_chunk;
    f32s sums[16 / lanes] = {};
    std::size_t i = at;
    for (; i < stop; i += 16) {
      float padded[16] = {};
      float const* p = x + i;
      ahead(p);
      if (stop - i < 16) {
        __builtin_memcpy(padded, p, 4 * (stop - i));
        p = padded;
      }
      DOVETAIL_UNROLL_4
      for (int j = 0; j < 16 / lanes; ++j) {
        f32s const v = load(p + j * lanes) * scale;
        sums[j] += Squares ? hidden(v * v) : abs(v);
      }
    }
    float each[16];
    for (int j = 0; j < 16 / lanes; ++j) store(each + j * lanes, sums[j]);
    double chunk = 0;
    for (float const s : each) chunk += static_cast<double>(s);
    if (n <= detail::sum_chunk) return chunk;
    total.add(chunk);
  }
  return total.total();
}
inline double sum_squares(float const* x, std::size_t n, float scale) { return sum_powers<true>(x, n, scale); }
inline double sum_magnitudes(float const* x, std::size_t n, float scale) { return sum_powers<false>(x, n, scale); }

// codes[i] = levels + sign(x) · min(levels, floor(|x| · scale · inverse + u)), u random where there is a key, or 1/2.
template <bool Random>
DOVETAIL_HOST_INLINE void quantize_any(float const* x, std::size_t n, float scale, float inverse, int levels,
                                       element_random const& key, std::uint32_t first, std::uint8_t* codes) {
  random_lanes random(key, first);
  i32s const most = i32s{} + levels;
  for (std::size_t i = 0; i < n; i += lanes) {
    f32s const v = n - i < lanes ? load_part(x + i, n - i) : load(x + i);
    f32s const share = Random ? uniform_from(random.next()) : f32s{} + 0.5f;
    i32s q = __builtin_convertvector(hidden(abs(v) * scale * inverse) + share, i32s);
    q = q > most ? most : q;
    i32s const negative = bits_as<i32s>(v) >> 31;
    u8s const code = narrowed(bits_as<u32s>(((q ^ negative) - negative) + most));
    if (n - i < lanes)
      store_part(codes + i, n - i, code);
    else
      store(codes + i, code);
  }
}
inline void quantize_nearest(float const* x, std::size_t n, float scale, float inverse, int levels,
                             std::uint8_t* codes) {
  quantize_any<false>(x, n, scale, inverse, levels, {}, 0, codes);
}
inline void quantize_random(float const* x, std::size_t n, float scale, float inverse, int levels,
                            element_random const& key, std::uint32_t first, std::uint8_t* codes) {
  quantize_any<true>(x, n, scale, inverse, levels, key, first, codes);
}

// out[i] += unit · (codes[i] − zero)
inline void add_levels(std::uint8_t const* codes, std::size_t n, float unit, int zero, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    i32s const q = bits_as<i32s>(widened(load<u8s>(codes + i))) - zero;
    ahead(out + i);
    store(out + i, load(out + i) + hidden(__builtin_convertvector(q, f32s) * unit));
  }
  if (i == n) return;
  i32s const q = bits_as<i32s>(widened(load_part<u8s>(codes + i, n - i))) - zero;
  store_part(out + i, n - i, load_part(out + i, n - i) + hidden(__builtin_convertvector(q, f32s) * unit));
}

// out[i] += unit · values[codes[i]]
inline void add_values(std::uint8_t const* codes, std::size_t n, float unit, float const* values, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    f32s v;
    for (int j = 0; j < lanes; ++j) v[j] = values[codes[i + static_cast<std::size_t>(j)]];
    ahead(out + i);
    store(out + i, load(out + i) + hidden(v * unit));
  }
  for (; i < n; ++i) {
    out[i] += hidden(values[codes[i]] * unit);
  }
}

// The exponent of |x|, rounded up with the probability that keeps the expectation, in `exponents`, of which no finite
// number has 255; the signs in bits, the first in the lowest. n is a multiple of 8 but for the last call.
inline void to_powers(float const* x, std::size_t n, element_random const& key, std::uint32_t first,
                      std::byte* exponents, std::byte* bits) {
  random_lanes random(key, first);
  for (std::size_t i = 0; i < n; i += 16) {
    unsigned negative = 0;
    float padded[16] = {};
    float const* p = x + i;
    bool const part = n - i < 16;
    if (part) {
      __builtin_memcpy(padded, p, 4 * (n - i));
      p = padded;
    }
    std::uint8_t codes[16];
    DOVETAIL_UNROLL_4
    for (int j = 0; j < 16; j += lanes) {
      i32s const u = load<i32s>(p + j), a = u & 0x7fffffff;
      i32s up = bits_as<i32s>((bits_as<u32s>(a) + (random.next() >> 9)) >> 23);
      up = up > 254 ? i32s{} + 254 : up;  // what is finite stays so
      up = a >= 0x7f800000 ? i32s{} + 255 : up;
      store(codes + j, narrowed(bits_as<u32s>(up)));
      negative |= mask_of(u) << j;
    }
    if (part) negative &= (1u << (n - i)) - 1;
    __builtin_memcpy(exponents + i, codes, part ? n - i : 16);
    std::uint8_t const two[2] = {static_cast<std::uint8_t>(negative), static_cast<std::uint8_t>(negative >> 8)};
    if (n - i > 8)
      __builtin_memcpy(bits + i / 8, two, 2);
    else
      __builtin_memcpy(bits + i / 8, two, 1);
  }
}
// out[i] += weight · ±2^(exponent − 127); 0 for the exponent 0.
inline void add_powers(std::byte const* exponents, std::byte const* bits, std::size_t n, float weight, float* out) {
  i32s bit{};
  for (int j = 0; j < lanes; ++j) bit[j] = 1 << j;
  for (std::size_t i = 0; i < n; i += 16) {
    bool const part = n - i < 16;
    std::byte codes[16] = {};
    std::uint8_t two[2] = {};
    float padded[16] = {};
    float* p = out + i;
    ahead(p);
    __builtin_memcpy(two, bits + i / 8, n - i > 8 ? 2 : 1);
    std::byte const* from = exponents + i;
    if (part) {
      __builtin_memcpy(codes, from, n - i);
      from = codes;
      __builtin_memcpy(padded, p, 4 * (n - i));
      p = padded;
    }
    int const m = two[0] | (two[1] << 8);
    DOVETAIL_UNROLL_4
    for (int j = 0; j < 16; j += lanes) {
      i32s const power = bits_as<i32s>(widened(load<u8s>(from + j))) << 23;
      i32s const negative = ((i32s{} + (m >> j)) & bit) != 0;
      i32s const signs = negative & static_cast<std::int32_t>(0x80000000u);
      store(p + j, load(p + j) + hidden(bits_as<f32s>(power | signs) * weight));
    }
    if (part) __builtin_memcpy(out + i, padded, 4 * (n - i));
  }
}

// Upper halves, rounded up with the probability that keeps the expectation. NaN and infinity stay.
inline void to_bf16_random(float const* x, std::size_t n, element_random const& key, std::uint32_t first,
                           std::byte* out) {
  random_lanes random(key, first);
  for (std::size_t i = 0; i < n; i += lanes) {
    bool const part = n - i < lanes;
    u32s const u = part ? load_part<u32s>(x + i, n - i) : load<u32s>(x + i);
    ahead(x + i);
    u32s const infinite = bits_as<u32s>(bits_as<i32s>(u & 0x7f800000u) == 0x7f800000);
    u32s const nan = bits_as<u32s>(bits_as<i32s>(u & 0x7fffffffu) > 0x7f800000) & 0x400000u;
    u32s sum = u + ((random.next() >> 16) & ~infinite);
    // The largest numbers would become infinite: they are rounded down.
    u32s const over = bits_as<u32s>(bits_as<i32s>(sum & 0x7fffffffu) >= 0x7f800000) & ~infinite;
    sum = (sum & ~over) | (u & over);
    u16s const half = __builtin_convertvector((sum | nan) >> 16, u16s);
    if (part)
      store_part(out + 2 * i, n - i, half);
    else
      store(out + 2 * i, half);
  }
}

// ceil(n/8) bytes of bits, 1 = below 0, and the sums of both halves, as sum_powers makes sums.
inline two_sums to_halves(float const* x, std::size_t n, std::byte* bits) {
  two_sums total;
  for (std::size_t at = 0; at < n; at += 4096) {
    std::size_t const stop = n - at < 4096 ? n : at + 4096;
    f32s below[16 / lanes] = {}, others[16 / lanes] = {};
    for (std::size_t i = at; i < stop; i += 16) {
      float padded[16] = {};
      float const* p = x + i;
      ahead(p);
      bool const part = stop - i < 16;
      if (part) {
        __builtin_memcpy(padded, p, 4 * (stop - i));
        p = padded;
      }
      unsigned m = 0;
      DOVETAIL_UNROLL_4
      for (int j = 0; j < 16 / lanes; ++j) {
        f32s const v = load(p + j * lanes);
        i32s const negative = hidden(v) < 0.0f;
        below[j] += select(negative, v, f32s{});
        others[j] += select(negative, f32s{}, v);
        m |= mask_of(negative) << (j * lanes);
      }
      total.below += static_cast<std::size_t>(__builtin_popcount(m));
      std::uint8_t const two[2] = {static_cast<std::uint8_t>(m), static_cast<std::uint8_t>(m >> 8)};
      if (stop - i > 8)
        __builtin_memcpy(bits + i / 8, two, 2);
      else
        __builtin_memcpy(bits + i / 8, two, 1);
    }
    float each[16];
    for (int j = 0; j < 16 / lanes; ++j) store(each + j * lanes, below[j]);
    for (float const v : each) total.negative += static_cast<double>(v);
    for (int j = 0; j < 16 / lanes; ++j) store(each + j * lanes, others[j]);
    for (float const v : each) total.others += static_cast<double>(v);
  }
  return total;
}
// out[i] += zero or one, by its bit.
inline void add_halves(std::byte const* bits, std::size_t n, float zero, float one, float* out) {
  i32s bit{};
  for (int j = 0; j < lanes; ++j) bit[j] = 1 << j;
  f32s const zeros = f32s{} + zero, ones = f32s{} + one;
  for (std::size_t i = 0; i < n; i += 16) {
    std::size_t const left = n - i;
    std::uint8_t two[2] = {};
    __builtin_memcpy(two, bits + i / 8, left > 8 ? 2 : 1);
    int const m = two[0] | (two[1] << 8);
    float padded[16] = {};
    float* p = out + i;
    ahead(p);
    if (left < 16) {
      __builtin_memcpy(padded, p, 4 * left);
      p = padded;
    }
    DOVETAIL_UNROLL_4
    for (int j = 0; j < 16; j += lanes) {
      i32s const set = ((i32s{} + (m >> j)) & bit) != 0;
      store(p + j, load(p + j) + select(set, ones, zeros));
    }
    if (left < 16) __builtin_memcpy(out + i, padded, 4 * left);
  }
}

// 8-bit floats of `Bits` bits of mantissa and the exponent bias `Bias`, to nearest even. |x| · scale · inverse is
// within their range.
template <int Bits, int Bias>
inline void to_8bit(float const* x, std::size_t n, float scale, float inverse, std::uint8_t* codes) {
  constexpr std::uint32_t half = (1u << (22 - Bits)) - 1, before = static_cast<std::uint32_t>(127 - Bias) << Bits;
  constexpr std::int32_t normal = (128 - Bias) << 23;  // the smallest number with a hidden bit
  constexpr std::uint32_t magic = static_cast<std::uint32_t>(127 + 24 - Bias - Bits) << 23;  // its unit is the smallest
  for (std::size_t i = 0; i < n; i += lanes) {
    bool const part = n - i < lanes;
    f32s const v = part ? load_part(x + i, n - i) : load(x + i), y = hidden(abs(v) * scale * inverse);
    u32s const u = bits_as<u32s>(y);
    u32s const large = ((u + half + ((u >> (23 - Bits)) & 1u)) >> (23 - Bits)) - before;
    u32s const small = bits_as<u32s>(hidden(y + bits_as<f32s>(u32s{} + magic))) - magic;
    u32s const code = select(bits_as<i32s>(u) >= normal, large, small);
    u8s const narrow = narrowed(code | ((bits_as<u32s>(v) >> 24) & 0x80u));
    if (part)
      store_part(codes + i, n - i, narrow);
    else
      store(codes + i, narrow);
  }
}
template <int Bits, int Bias>
inline void add_8bit(std::uint8_t const* codes, std::size_t n, float unit, float* out) {
  for (std::size_t i = 0; i < n; i += lanes) {
    bool const part = n - i < lanes;
    u32s const code = widened(part ? load_part<u8s>(codes + i, n - i) : load<u8s>(codes + i)), m = code & 0x7fu;
    constexpr std::uint32_t before = static_cast<std::uint32_t>(127 - Bias) << 23;
    u32s const large = (m << (23 - Bits)) + before;
    constexpr std::uint32_t smallest = static_cast<std::uint32_t>(128 - Bias - Bits) << 23;
    f32s const tiny = __builtin_convertvector(bits_as<i32s>(m), f32s) * __builtin_bit_cast(float, smallest);
    u32s value = select(bits_as<i32s>(m) >= (1 << Bits), large, bits_as<u32s>(tiny));
    // What these formats keep for numbers that are not finite is never sent, and makes no NaN of a damaged payload.
    value |= (code & 0x80u) << 24;
    f32s const added = hidden(bits_as<f32s>(value) * unit);
    if (part)
      store_part(out + i, n - i, load_part(out + i, n - i) + added);
    else {
      ahead(out + i);
      store(out + i, load(out + i) + added);
    }
  }
}
inline void to_e4m3(float const* x, std::size_t n, float scale, float inverse, std::uint8_t* codes) {
  to_8bit<3, 7>(x, n, scale, inverse, codes);
}
inline void to_e5m2(float const* x, std::size_t n, float scale, float inverse, std::uint8_t* codes) {
  to_8bit<2, 15>(x, n, scale, inverse, codes);
}
inline void add_e4m3(std::uint8_t const* codes, std::size_t n, float unit, float* out) {
  add_8bit<3, 7>(codes, n, unit, out);
}
inline void add_e5m2(std::uint8_t const* codes, std::size_t n, float unit, float* out) {
  add_8bit<2, 15>(codes, n, unit, out);
}

// codes[i] = levels ± k: |x| · scale · inverse, at most 1, becomes 0 or 2^(k − levels), k = 1 … levels, rounded up with
// the probability that keeps the expectation.
inline void quantize_powers(float const* x, std::size_t n, float scale, float inverse, int levels,
                            element_random const& key, std::uint32_t first, std::uint8_t* codes) {
  random_lanes random(key, first);
  auto const smallest = static_cast<std::uint32_t>(128 - levels) << 23;
  float const least = __builtin_bit_cast(float, smallest), up = __builtin_bit_cast(float, (254u << 23) - smallest);
  i32s const most = i32s{} + levels;
  for (std::size_t i = 0; i < n; i += lanes) {
    bool const part = n - i < lanes;
    f32s const v = part ? load_part(x + i, n - i) : load(x + i), y = hidden(abs(v) * scale * inverse);
    u32s const h = random.next();
    i32s k = bits_as<i32s>((bits_as<u32s>(y) + (h >> 9)) >> 23);
    k += levels - 127;
    k = k > most ? most : k;
    i32s const low = (uniform_from(h) < y * up) & 1;
    k = select(y < least, low, k);
    i32s const negative = bits_as<i32s>(v) >> 31;
    u8s const code = narrowed(bits_as<u32s>(((k ^ negative) - negative) + most));
    if (part)
      store_part(codes + i, n - i, code);
    else
      store(codes + i, code);
  }
}
// out[i] += unit · ±2^(k − levels), or 0; codes beyond 2 · levels count as more.
inline void add_level_powers(std::uint8_t const* codes, std::size_t n, float unit, int levels, float* out) {
  for (std::size_t i = 0; i < n; i += lanes) {
    bool const part = n - i < lanes;
    i32s const q = bits_as<i32s>(widened(part ? load_part<u8s>(codes + i, n - i) : load<u8s>(codes + i))) - levels;
    i32s const negative = q >> 31, k = (q ^ negative) - negative;
    i32s const power = ((k + (127 - levels)) << 23) & (k != 0);
    f32s const added = hidden(bits_as<f32s>(power | (negative & static_cast<std::int32_t>(0x80000000u))) * unit);
    if (part)
      store_part(out + i, n - i, load_part(out + i, n - i) + added);
    else {
      ahead(out + i);
      store(out + i, load(out + i) + added);
    }
  }
}

// Numbers of `width` <= 8 bits, one behind the other, the first in the lowest bits. 8 of them take `width` bytes: in
// three steps, all in one word, neighbours close up, then pairs, then fours.
inline void pack_bits(std::uint8_t const* codes, std::size_t n, int width, std::byte* out) {
  using u64s = register_of<std::uint64_t>;
  constexpr std::size_t words = lanes / 2;
  auto const w = static_cast<unsigned>(width);
  std::size_t const step = static_cast<std::size_t>(width);
  if (width == 8) {
    __builtin_memcpy(out, codes, n);
    return;
  }
  for (std::size_t i = 0; i < n; i += 8 * words) {
    u64s v = n - i < 8 * words ? bits_as<u64s>(load_part<register_of<std::uint8_t>>(codes + i, n - i))
                               : load<u64s>(codes + i);
    v = (v & 0x00ff00ff00ff00ffu) | ((v & 0xff00ff00ff00ff00u) >> (8 - w));
    v = (v & 0x0000ffff0000ffffu) | ((v & 0xffff0000ffff0000u) >> (16 - 2 * w));
    v = (v & 0x00000000ffffffffu) | ((v & 0xffffffff00000000u) >> (32 - 4 * w));
    if (n - i >= 8 * words + 64) {  // the bytes behind a word are written anew by the next one
      for (std::size_t j = 0; j < words; ++j) {
        std::uint64_t const word = v[static_cast<int>(j)];
        __builtin_memcpy(out + (i / 8 + j) * step, &word, 8);
      }
    } else {
      for (std::size_t j = 0; j < words && i + 8 * j < n; ++j) {
        std::uint64_t const word = v[static_cast<int>(j)];
        std::size_t const left = n - i - 8 * j;
        __builtin_memcpy(out + (i / 8 + j) * step, &word, left >= 8 ? step : (left * step + 7) / 8);
      }
    }
  }
}
inline void unpack_bits(std::byte const* in, std::size_t n, int width, std::uint8_t* codes) {
  using u64s = register_of<std::uint64_t>;
  constexpr std::size_t words = lanes / 2;
  auto const w = static_cast<unsigned>(width);
  std::size_t const step = static_cast<std::size_t>(width);
  if (width == 8) {
    __builtin_memcpy(codes, in, n);
    return;
  }
  std::uint64_t const one = (std::uint64_t{1} << w) - 1, two = one | one << 16, pairs = (std::uint64_t{1} << 2 * w) - 1,
                      fours = (std::uint64_t{1} << 4 * w) - 1;
  for (std::size_t i = 0; i < n; i += 8 * words) {
    std::uint64_t each[words] = {};
    if (n - i >= 8 * words + 64) {
      for (std::size_t j = 0; j < words; ++j) __builtin_memcpy(&each[j], in + (i / 8 + j) * step, 8);
    } else {
      for (std::size_t j = 0; j < words && i + 8 * j < n; ++j) {
        std::size_t const left = n - i - 8 * j;
        __builtin_memcpy(&each[j], in + (i / 8 + j) * step, left >= 8 ? step : (left * step + 7) / 8);
      }
    }
    u64s v = load<u64s>(each);
    v = (v & fours) | ((v & (fours << 4 * w)) << (32 - 4 * w));
    v = (v & (pairs | pairs << 32)) | ((v & ((pairs | pairs << 32) << 2 * w)) << (16 - 2 * w));
    v = (v & (two | two << 32)) | ((v & ((two | two << 32) << w)) << (8 - w));
    if (n - i >= 8 * words)
      store(codes + i, v);
    else
      __builtin_memcpy(codes + i, &v, n - i);
  }
}

#endif
