// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's pack without vector extensions, for compilers that refuse them: nvcc in what may run on a device. The
// host's loops in such a file are slower than elsewhere, and otherwise the same. Included by core/simd.hpp only.

#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>

namespace dovetail::simd {

// A width of its own: the same templates in a file of another compiler get other symbols.
inline namespace lanes_16_plain {
inline constexpr int pack_lanes = 16;

struct pack_mask {
  std::int32_t bits[pack_lanes];
};

struct pack {
  static constexpr int lanes = pack_lanes;
  float v[lanes];

  pack() = default;
  DOVETAIL_INLINE pack(float x) {
    for (float& lane : v) lane = x;
  }
  DOVETAIL_INLINE static pack load(float const* p) {
    return each([p](int i) { return p[i]; });
  }
  DOVETAIL_INLINE void store(float* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
  }
  /// Lane by lane.
  template <class F>
  DOVETAIL_INLINE static pack each(F const& f) {
    pack r;
    for (int i = 0; i < lanes; ++i) r.v[i] = f(i);
    return r;
  }
  template <class F>
  DOVETAIL_INLINE static pack_mask mask(F const& f) {
    pack_mask m;
    for (int i = 0; i < lanes; ++i) m.bits[i] = f(i) ? -1 : 0;
    return m;
  }

#define DOVETAIL_LANES(result, make, op)                                    \
  DOVETAIL_INLINE friend result operator op(pack const& a, pack const& b) { \
    return make([&](int i) { return a.v[i] op b.v[i]; });                   \
  }
  DOVETAIL_LANES(pack, each, +)
  DOVETAIL_LANES(pack, each, -)
  DOVETAIL_LANES(pack, each, *)
  DOVETAIL_LANES(pack, each, /)
  DOVETAIL_LANES(pack_mask, mask, <)
  DOVETAIL_LANES(pack_mask, mask, >)
  DOVETAIL_LANES(pack_mask, mask, <=)
  DOVETAIL_LANES(pack_mask, mask, >=)
  DOVETAIL_LANES(pack_mask, mask, ==)
#undef DOVETAIL_LANES
  DOVETAIL_INLINE friend pack operator-(pack const& a) {
    return each([&](int i) { return -a.v[i]; });
  }
};

DOVETAIL_INLINE pack select(pack_mask const& m, pack const& a, pack const& b) {
  return pack::each([&](int i) { return m.bits[i] ? a.v[i] : b.v[i]; });
}
DOVETAIL_INLINE pack keep(pack_mask const& m, pack const& a) {
  return pack::each([&](int i) { return m.bits[i] ? a.v[i] : 0.0f; });
}
template <class Mask>
DOVETAIL_INLINE void first_lanes(Mask& m, int n) {
  for (int i = 0; i < static_cast<int>(sizeof(m.bits) / sizeof(m.bits[0])); ++i) m.bits[i] = i < n ? -1 : 0;
}
DOVETAIL_INLINE pack_mask is_nan(pack const& a) {
  return pack::mask([&](int i) { return dovetail::is_nan(a.v[i]); });
}
DOVETAIL_INLINE pack sqrt(pack const& a) {
  return pack::each([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
DOVETAIL_INLINE pack abs(pack const& a) {
  return pack::each([&](int i) { return __builtin_fabsf(a.v[i]); });
}
DOVETAIL_INLINE pack min(pack const& a, pack const& b) { return select(b < a, b, a); }
DOVETAIL_INLINE pack max(pack const& a, pack const& b) { return select(a < b, b, a); }
DOVETAIL_INLINE pack sign(pack const& a) { return select(a > 0.0f, 1.0f, select(a < 0.0f, -1.0f, a)); }

struct product_sum {
  double sums[pack_lanes] = {};
  DOVETAIL_INLINE void add(pack const& a, pack const& b) {
    for (int i = 0; i < pack_lanes; ++i) sums[i] += static_cast<double>(a.v[i]) * static_cast<double>(b.v[i]);
  }
  double total() const {
    double t = 0;
    for (double const s : sums) t += s;
    return t;
  }
};

}  // namespace lanes_16_plain
}  // namespace dovetail::simd
