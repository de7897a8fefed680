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
DOVETAIL_HOST_INLINE vu numbered() {
  vu n;
  for (int i = 0; i < lanes; ++i) n[i] = static_cast<std::uint32_t>(i);
  return n;
}
// 32 random bits for element i + lane of a block: the block's own word of Philox, mixed. Rounding needs no more.
DOVETAIL_HOST_INLINE vu random_bits(std::uint32_t word, vu number, std::uint32_t i) {
  vu h = (number + i) * 0x9E3779B9u + word;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return h ^ (h >> 16);
}

inline void pack_bf16(float const* x, std::uint32_t word, std::uint16_t* codes) {
  vu const number = numbered();
  for (std::uint32_t i = 0; i < 256; i += lanes) {
    vu const u = load<vu>(x + i), random = random_bits(word, number, i) & 0xffffu;
    vu const infinite = vu((u & 0x7f800000u) == 0x7f800000u);
    // Numbers that are not finite stay: a NaN keeps a bit in its upper half.
    vu const nan = vu((u & 0x7fffffffu) > 0x7f800000u) & 0x400000u;
    store(codes + i, __builtin_convertvector(((u + (random & ~infinite)) | nan) >> 16, vh));
  }
}
inline void unpack_bf16(std::uint16_t const* codes, float* x) {
  for (int i = 0; i < 256; i += lanes) store(x + i, __builtin_convertvector(load<vh>(codes + i), vu) << 16);
}

// The result is the block's scale: the largest magnitude, negative if there are signs; NaN if not all is finite.
inline float pack_8bit(float const* x, std::uint32_t word, std::uint8_t* codes) {
  vu most{}, any{};
  for (int i = 0; i < 256; i += lanes) {
    vu const u = load<vu>(x + i), a = u & 0x7fffffffu;
    vu const larger = vu(vi(a) > vi(most));
    most = (a & larger) | (most & ~larger);
    any |= u & vu(a != 0);  // -0 is no negative number
  }
  std::uint32_t largest = 0, signs = 0;
  for (int i = 0; i < lanes; ++i) {
    largest = most[i] > largest ? most[i] : largest;
    signs |= any[i] & 0x80000000u;
  }
  if (largest == 0 || largest >= 0x7f800000u) {
    __builtin_memset(codes, 0, 256);
    return largest ? __builtin_nanf("") : 0.0f;
  }
  // Exponent and mantissa of code 1; a code below it is that or 0.
  std::uint32_t const lowest = signs ? 112u << 3 : 96u << 3;
  float const scale = std::bit_cast<float>(largest), smallest = std::bit_cast<float>(lowest << 20);
  vu const number = numbered();
  for (std::uint32_t i = 0; i < 256; i += lanes) {
    vu const u = load<vu>(x + i);
    vf const y = vf(u & 0x7fffffffu) / scale;
    vu const random = random_bits(word, number, i) >> 12;  // 20 bits
    vu const rounded = ((vu(y) + random) >> 20) - (lowest - 1);
    vf const share = __builtin_convertvector(vi(random), vf) * smallest;
    vu const tiny = vu(y * 0x1p20f > share) & 1u;
    vu const normal = vu(vi(vu(y)) >= static_cast<std::int32_t>(lowest << 20));
    vu code = (rounded & normal) | (tiny & ~normal);
    if (signs) code |= (u >> 24) & 0x80u & vu(code != 0);
    store(codes + i, __builtin_convertvector(code, vb));
  }
  return signs ? -scale : scale;
}
inline void unpack_8bit(std::uint8_t const* codes, float scale, float* x) {
  bool const signs = scale < 0;
  float const size = signs ? -scale : scale;
  std::uint32_t const lowest = signs ? 112u << 3 : 96u << 3, magnitude = signs ? 0x7fu : 0xffu;
  for (int i = 0; i < 256; i += lanes) {
    vu const code = __builtin_convertvector(load<vb>(codes + i), vu), m = code & magnitude;
    vu const bits = ((m + (lowest - 1)) << 20) & vu(m != 0);
    vu const sign = (code & ~vu{} & ~magnitude & 0x80u) << 24;
    store(x + i, vf(bits | sign) * size);
  }
}

inline constexpr kernel_set set{pack_bf16, unpack_bf16, pack_8bit, unpack_8bit};

#endif
