// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: storage_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own. Blocks of 256 elements, in vectors of `lanes` (core/vectors.hpp); every level gives the same bits.
#if defined(DOVETAIL_KERNEL_LANES)

// codes::random_bits for elements i + lane of a block's first half, and of its second; `counted` goes from one i to the
// next.
struct random_words {
  u32s counted;
  std::uint32_t turn;
  DOVETAIL_HOST_INLINE explicit random_words(std::uint32_t word)
      : counted(u32s{} + (word & 0xffffu)), turn(word >> 16) {
    for (int i = 0; i < lanes; ++i) counted[i] += static_cast<std::uint32_t>(i) * 0x9E3779B9u;
  }
  DOVETAIL_HOST_INLINE u32s next() {
    u32s h = counted;
    counted += static_cast<std::uint32_t>(lanes) * 0x9E3779B9u;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
  }
  DOVETAIL_HOST_INLINE u32s first(u32s h) const { return (h + turn) & 0xffffu; }
  DOVETAIL_HOST_INLINE u32s second(u32s h) const { return ((h >> 16) + turn) & 0xffffu; }
};

DOVETAIL_HOST_INLINE void pack_bf16_at(float const* x, u32s random, std::uint16_t* codes) {
  u32s const u = load<u32s>(x);
  u32s const infinite = u32s((u & 0x7f800000u) == 0x7f800000u);
  // Numbers that are not finite stay: a NaN keeps a bit in its upper half.
  u32s const nan = u32s((u & 0x7fffffffu) > 0x7f800000u) & 0x400000u;
  store(codes, __builtin_convertvector(((u + (random & ~infinite)) | nan) >> 16, u16s));
}
inline void pack_bf16(float const* x, std::uint32_t word, std::uint16_t* codes) {
  random_words random(word);
  for (int i = 0; i < 128; i += lanes) {
    u32s const h = random.next();
    pack_bf16_at(x + i, random.first(h), codes + i);
    pack_bf16_at(x + i + 128, random.second(h), codes + i + 128);
  }
}
inline void unpack_bf16(std::uint16_t const* codes, float* x) {
  for (int i = 0; i < 256; i += lanes) store(x + i, bf16_to_float(load<u16s>(codes + i)));
}

// What codes::block_range has, for all lanes; shifts are constants, because not every level has others.
template <int Shift>
struct range_8bit {
  codes::format_8bit format;
  float inverse;

  DOVETAIL_HOST_INLINE void pack_at(float const* x, u32s share, std::uint8_t* codes) const {
    u32s const u = load<u32s>(x), magnitude = u & 0x7fffffffu;
    i32s const bits = i32s(f32s(magnitude) * inverse);
    u32s const rounded = ((u32s(bits) + ((share << (Shift - 16)) + (1u << (Shift - 17)))) >> Shift) - format.before;
    i32s const normal = bits >= static_cast<std::int32_t>(format.lowest << Shift);
    u32s const seen = u32s(bits >= static_cast<std::int32_t>(format.least)) & u32s(magnitude != 0) & 1u;
    u32s code = select(normal, rounded, seen);
    if (format.numbers == 0x7fu) code |= (u >> 24) & 0x80u & u32s(code != 0);
    store(codes, narrowed(code));
  }
  DOVETAIL_HOST_INLINE void pack(float const* x, std::uint32_t word, std::uint8_t* codes) const {
    random_words random(word);
    for (int i = 0; i < 128; i += lanes) {
      u32s const h = random.next();
      pack_at(x + i, random.first(h), codes + i);
      pack_at(x + i + 128, random.second(h), codes + i + 128);
    }
  }
};
// The result is the block's scale.
inline float pack_8bit(float const* x, std::uint32_t word, std::uint8_t* codes) {
  u32s most{}, least = u32s{} + 0x7fffffffu, any{};
  for (int i = 0; i < 256; i += lanes) {
    u32s const u = load<u32s>(x + i), a = u & 0x7fffffffu, none = u32s(a == 0) & 0x7fffffffu;
    most = select(i32s(a) > i32s(most), a, most);
    least = select(i32s(a | none) < i32s(least), a | none, least);
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
    u32s const code = widened(load<u8s>(codes + i)), m = code & format.numbers;
    u32s const bits = ((m + format.before) << Shift) & u32s(m != 0);
    u32s const sign = (code & ~format.numbers & 0x80u) << 24;
    store(x + i, f32s(bits | sign) * size);
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
