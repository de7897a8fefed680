// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// core/simd.hpp's packs without vector extensions, for compilers that refuse them: nvcc in what may run on a device.
// The host's loops in such a file are slower than elsewhere, and otherwise the same. Included by core/simd.hpp only.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/simd_number.hpp>

namespace dovetail::simd {

// A width of its own: the same templates in a file of another compiler get other symbols.
inline namespace lanes_16_plain {

template <class T>
struct basic_mask {
  std::conditional_t<std::is_same_v<T, double>, std::int64_t, std::int32_t> bits[64 / sizeof(T)];
};

template <class T>
struct basic_pack {
  using mask = basic_mask<T>;
  static constexpr int lanes = 64 / sizeof(T);
  T v[lanes];

  basic_pack() = default;
  DOVETAIL_INLINE basic_pack(T x) {
    for (T& lane : v) lane = x;
  }
  DOVETAIL_INLINE static basic_pack load(T const* p) {
    return each([p](int i) { return p[i]; });
  }
  DOVETAIL_INLINE void store(T* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
  }
  /// Lane by lane.
  template <class F>
  DOVETAIL_INLINE static basic_pack each(F const& f) {
    basic_pack r;
    for (int i = 0; i < lanes; ++i) r.v[i] = f(i);
    return r;
  }
  template <class F>
  DOVETAIL_INLINE static mask each_bit(F const& f) {
    mask m;
    for (int i = 0; i < lanes; ++i) m.bits[i] = f(i) ? -1 : 0;
    return m;
  }

#define DOVETAIL_LANES(result, make, op)                                                \
  DOVETAIL_INLINE friend result operator op(basic_pack const& a, basic_pack const& b) { \
    return make([&](int i) { return a.v[i] op b.v[i]; });                               \
  }
  DOVETAIL_LANES(basic_pack, each, +)
  DOVETAIL_LANES(basic_pack, each, -)
  DOVETAIL_LANES(basic_pack, each, *)
  DOVETAIL_LANES(basic_pack, each, /)
  DOVETAIL_LANES(mask, each_bit, <)
  DOVETAIL_LANES(mask, each_bit, >)
  DOVETAIL_LANES(mask, each_bit, <=)
  DOVETAIL_LANES(mask, each_bit, >=)
  DOVETAIL_LANES(mask, each_bit, ==)
#undef DOVETAIL_LANES
  DOVETAIL_INLINE friend basic_pack operator-(basic_pack const& a) {
    return each([&](int i) { return -a.v[i]; });
  }
};
using pack = basic_pack<float>;
using double_pack = basic_pack<double>;

template <class T>
DOVETAIL_INLINE basic_pack<T> select(basic_mask<T> const& m, std::type_identity_t<basic_pack<T>> const& a,
                                     std::type_identity_t<basic_pack<T>> const& b) {
  return basic_pack<T>::each([&](int i) { return m.bits[i] ? a.v[i] : b.v[i]; });
}
template <class T>
DOVETAIL_INLINE basic_pack<T> keep(basic_mask<T> const& m, basic_pack<T> const& a) {
  return select(m, a, T{0});
}
template <class T>
DOVETAIL_INLINE basic_mask<T> is_nan(basic_pack<T> const& a) {
  return basic_pack<T>::each_bit([&](int i) { return simd::is_nan(a.v[i]); });
}

// The functions of one number, lane by lane.
template <class T>
DOVETAIL_INLINE basic_pack<T> sqrt(basic_pack<T> const& a) {
  return basic_pack<T>::each([&](int i) { return simd::sqrt(a.v[i]); });
}
template <class T>
DOVETAIL_INLINE basic_pack<T> abs(basic_pack<T> const& a) {
  return basic_pack<T>::each([&](int i) { return simd::abs(a.v[i]); });
}
template <class T>
DOVETAIL_INLINE basic_pack<T> sign(basic_pack<T> const& a) {
  return basic_pack<T>::each([&](int i) { return simd::sign(a.v[i]); });
}
// No templates: a number on either side becomes a pack.
DOVETAIL_INLINE pack min(pack const& a, pack const& b) { return select(b < a, b, a); }
DOVETAIL_INLINE pack max(pack const& a, pack const& b) { return select(a < b, b, a); }
DOVETAIL_INLINE double_pack min(double_pack const& a, double_pack const& b) { return select(b < a, b, a); }
DOVETAIL_INLINE double_pack max(double_pack const& a, double_pack const& b) { return select(a < b, b, a); }
DOVETAIL_INLINE pack split(pack const& x, pack& mantissa) {
  return pack::each([&](int i) { return simd::split(x.v[i], mantissa.v[i]); });
}
DOVETAIL_INLINE pack whole(pack const& x) {
  return pack::each([&](int i) { return simd::whole(x.v[i]); });
}
DOVETAIL_INLINE pack two_to(pack const& n) {
  return pack::each([&](int i) { return simd::two_to(n.v[i]); });
}

template <class T>
struct product_sum {
  double sums[basic_pack<T>::lanes] = {};
  DOVETAIL_INLINE void add(basic_pack<T> const& a, basic_pack<T> const& b) {
    for (int i = 0; i < basic_pack<T>::lanes; ++i) sums[i] += static_cast<double>(a.v[i]) * static_cast<double>(b.v[i]);
  }
  double total() const {
    double t = 0;
    for (double const s : sums) t += s;
    return t;
  }
};

}  // namespace lanes_16_plain
}  // namespace dovetail::simd
