// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include <dovetail/core/simd.hpp>

// Loops over spans for tensorwise stages, on machine registers at any optimization level. f is a function of packs; all
// spans are as long as the first one.

namespace dovetail::optim::detail {

/// Calls body(i, load, n) for registers of elements, load(span) being elements [i, i + n) of a span, zeros behind n.
template <class Body>
DOVETAIL_INLINE void each_pack(std::size_t size, Body const& body) {
  constexpr std::size_t lanes = simd::pack::lanes;
  std::size_t i = 0;
  for (; i + lanes <= size; i += lanes)
    body(
        i, [i](std::span<float const> x) __attribute__((always_inline)) { return simd::pack::load(x.data() + i); },
        lanes);
  if (std::size_t const n = size - i)
    body(
        i,
        [i, n](std::span<float const> x) {
          float room[lanes] = {};
          std::memcpy(room, x.data() + i, n * sizeof(float));
          return simd::pack::load(room);
        },
        n);
}

/// out[i] = f(in[i]…); `out` may be one of the inputs.
template <class F, class... In>
inline void map(std::span<float> out, F const& f, In const&... in) {
  each_pack(
      out.size(), [&](std::size_t i, auto const& load, std::size_t n) __attribute__((always_inline)) {
        simd::pack const y = f(load(in)...);
        if (n == static_cast<std::size_t>(simd::pack::lanes)) {
          y.store(out.data() + i);
        } else {
          float room[simd::pack::lanes];
          y.store(room);
          std::memcpy(out.data() + i, room, n * sizeof(float));
        }
      });
}

/// The sum of a[i] b[i], in double precision.
inline double dot(std::span<float const> a, std::span<float const> b) {
  simd::product_sum sum;
  each_pack(
      a.size(), [&](std::size_t, auto const& load, std::size_t)
                    __attribute__((always_inline)) { sum.add(load(a), load(b)); });
  return sum.total();
}
/// The sum of x[i], in double precision.
inline double sum(std::span<float const> x) {
  simd::product_sum sum;
  each_pack(
      x.size(), [&](std::size_t, auto const& load, std::size_t)
                    __attribute__((always_inline)) { sum.add(load(x), 1.0f); });
  return sum.total();
}
inline double sum_of_squares(std::span<float const> x) { return dot(x, x); }
/// The largest f(in[i]…), none of which is negative, nor f(0…); 0 if there is none.
template <class F, class... In>
inline float largest_of(F const& f, std::span<float const> first, In const&... in) {
  simd::pack most = 0.0f;
  each_pack(
      first.size(), [&](std::size_t, auto const& load, std::size_t)
                        __attribute__((always_inline)) { most = simd::max(most, f(load(first), load(in)...)); });
  float lanes[simd::pack::lanes];
  most.store(lanes);
  return *std::max_element(lanes, lanes + simd::pack::lanes);
}

}  // namespace dovetail::optim::detail

namespace dovetail::optim {
/// The sum of x[i]^2, in double precision.
using detail::sum_of_squares;
}  // namespace dovetail::optim
