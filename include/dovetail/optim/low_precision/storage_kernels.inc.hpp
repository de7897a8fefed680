// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: storage_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own. Blocks of 256 elements, in vectors of `lanes`; every level gives the same bits.
#if defined(DOVETAIL_STORAGE_LEVEL)

constexpr int lanes = 4 << DOVETAIL_STORAGE_LEVEL;  // 4, 8, 16
typedef float vf __attribute__((vector_size(4 * lanes)));
typedef std::int32_t vi __attribute__((vector_size(4 * lanes)));
typedef std::uint32_t vu __attribute__((vector_size(4 * lanes)));
typedef std::uint16_t vh __attribute__((vector_size(2 * lanes)));
typedef std::uint8_t vb __attribute__((vector_size(lanes)));

template <class V, class T>
DOVETAIL_HOST_INLINE V load(T const* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
DOVETAIL_HOST_INLINE void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
#if DOVETAIL_STORAGE_LEVEL > 0
// Between 8 and 32 bits by way of 16: GCC takes a conversion in one step apart into elements.
DOVETAIL_HOST_INLINE vu widened(vb x) { return __builtin_convertvector(__builtin_convertvector(x, vh), vu); }
DOVETAIL_HOST_INLINE vb narrowed(vu x) { return __builtin_convertvector(__builtin_convertvector(x, vh), vb); }
#else
DOVETAIL_HOST_INLINE vu widened(vb x) { return __builtin_convertvector(x, vu); }
DOVETAIL_HOST_INLINE vb narrowed(vu x) { return __builtin_convertvector(x, vb); }
#endif

// codes::random_bits for elements i + lane of a block's first half, and of its second; `counted` goes from one i to the
// next.
struct random_words {
  vu counted;
  std::uint32_t turn;
  DOVETAIL_HOST_INLINE explicit random_words(std::uint32_t word) : counted(vu{} + (word & 0xffffu)), turn(word >> 16) {
    for (int i = 0; i < lanes; ++i) counted[i] += static_cast<std::uint32_t>(i) * 0x9E3779B9u;
  }
  DOVETAIL_HOST_INLINE vu next() {
    vu h = counted;
    counted += static_cast<std::uint32_t>(lanes) * 0x9E3779B9u;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
  }
  DOVETAIL_HOST_INLINE vu first(vu h) const { return (h + turn) & 0xffffu; }
  DOVETAIL_HOST_INLINE vu second(vu h) const { return ((h >> 16) + turn) & 0xffffu; }
};

DOVETAIL_HOST_INLINE void pack_bf16_at(float const* x, vu random, std::uint16_t* codes) {
  vu const u = load<vu>(x);
  vu const infinite = vu((u & 0x7f800000u) == 0x7f800000u);
  // Numbers that are not finite stay: a NaN keeps a bit in its upper half.
  vu const nan = vu((u & 0x7fffffffu) > 0x7f800000u) & 0x400000u;
  store(codes, __builtin_convertvector(((u + (random & ~infinite)) | nan) >> 16, vh));
}
inline void pack_bf16(float const* x, std::uint32_t word, std::uint16_t* codes) {
  random_words random(word);
  for (int i = 0; i < 128; i += lanes) {
    vu const h = random.next();
    pack_bf16_at(x + i, random.first(h), codes + i);
    pack_bf16_at(x + i + 128, random.second(h), codes + i + 128);
  }
}
inline void unpack_bf16(std::uint16_t const* codes, float* x) {
  for (int i = 0; i < 256; i += lanes) store(x + i, __builtin_convertvector(load<vh>(codes + i), vu) << 16);
}

// What codes::block_range has, for all lanes; shifts are constants, because not every level has others.
template <int Shift>
struct range_8bit {
  codes::format_8bit format;
  float inverse;

  DOVETAIL_HOST_INLINE void pack_at(float const* x, vu share, std::uint8_t* codes) const {
    vu const u = load<vu>(x), magnitude = u & 0x7fffffffu;
    vi const bits = vi(vf(magnitude) * inverse);
    vu const rounded = ((vu(bits) + ((share << (Shift - 16)) + (1u << (Shift - 17)))) >> Shift) - format.before;
    vu const normal = vu(bits >= static_cast<std::int32_t>(format.lowest << Shift));
    vu const seen = vu(bits >= static_cast<std::int32_t>(format.least)) & vu(magnitude != 0) & 1u;
    vu code = (rounded & normal) | (seen & ~normal);
    if (format.numbers == 0x7fu) code |= (u >> 24) & 0x80u & vu(code != 0);
    store(codes, narrowed(code));
  }
  DOVETAIL_HOST_INLINE void pack(float const* x, std::uint32_t word, std::uint8_t* codes) const {
    random_words random(word);
    for (int i = 0; i < 128; i += lanes) {
      vu const h = random.next();
      pack_at(x + i, random.first(h), codes + i);
      pack_at(x + i + 128, random.second(h), codes + i + 128);
    }
  }
};
// The result is the block's scale.
inline float pack_8bit(float const* x, std::uint32_t word, std::uint8_t* codes) {
  vu most{}, least = vu{} + 0x7fffffffu, any{};
  for (int i = 0; i < 256; i += lanes) {
    vu const u = load<vu>(x + i), a = u & 0x7fffffffu, none = vu(a == 0) & 0x7fffffffu;
    vu const larger = vu(vi(a) > vi(most)), smaller = vu(vi(a | none) < vi(least));
    most = (a & larger) | (most & ~larger);
    least = ((a | none) & smaller) | (least & ~smaller);
    any |= u & ~none;  // -0 is no negative number
  }
  codes::block_range range;
  for (int i = 0; i < lanes; ++i) {
    range.largest = most[i] > range.largest ? most[i] : range.largest;
    range.smallest = least[i] < range.smallest ? least[i] : range.smallest;
    range.signs |= any[i] & 0x80000000u;
  }
  if (!range.codable())
    __builtin_memset(codes, 0, 256);
  else if (range.wide())
    range_8bit<21>{range.format(), range.inverse()}.pack(x, word, codes);
  else
    range_8bit<20>{range.format(), range.inverse()}.pack(x, word, codes);
  return range.scale();
}
template <int Shift>
DOVETAIL_HOST_INLINE void unpack(codes::format_8bit const& format, std::uint8_t const* codes, float size, float* x) {
  for (int i = 0; i < 256; i += lanes) {
    vu const code = widened(load<vb>(codes + i)), m = code & format.numbers;
    vu const bits = ((m + format.before) << Shift) & vu(m != 0);
    vu const sign = (code & ~format.numbers & 0x80u) << 24;
    store(x + i, vf(bits | sign) * size);
  }
}
inline void unpack_8bit(std::uint8_t const* codes, float scale, float* x) {
  auto const format = codes::format_of(scale);
  float const size = scale < 0 ? -scale : scale;
  if (format.shift == 21)
    unpack<21>(format, codes, size, x);
  else
    unpack<20>(format, codes, size, x);
}

inline constexpr kernel_set set{pack_bf16, unpack_bf16, pack_8bit, unpack_8bit};

#endif
