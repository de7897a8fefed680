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
template <class T, class Body>
DOVETAIL_INLINE void each_pack(std::size_t size, Body const& body) {
  using pack = simd::pack_of<T>;
  constexpr std::size_t lanes = pack::lanes;
  std::size_t i = 0;
  for (; i + lanes <= size; i += lanes)
    body(
        i, [i](std::span<T const> x) __attribute__((always_inline)) { return pack::load(x.data() + i); }, lanes);
  if (std::size_t const n = size - i)
    body(
        i,
        [i, n](std::span<T const> x) {
          T room[pack::lanes] = {};
          std::memcpy(room, x.data() + i, n * sizeof(T));
          return pack::load(room);
        },
        n);
}

/// out[i] = f(in[i]…); `out` may be one of the inputs.
template <class T, class F, class... In>
inline void map(std::span<T> out, F const& f, In const&... in) {
  using pack = simd::pack_of<T>;
  each_pack<T>(
      out.size(), [&](std::size_t i, auto const& load, std::size_t n) __attribute__((always_inline)) {
        pack const y = f(load(in)...);
        if (n == static_cast<std::size_t>(pack::lanes)) {
          y.store(out.data() + i);
        } else {
          T room[pack::lanes];
          y.store(room);
          std::memcpy(out.data() + i, room, n * sizeof(T));
        }
      });
}

template <class T>
double dot_of(std::span<T const> a, std::span<T const> b) {
  typename simd::loop_traits<simd::pack_of<T>>::sum_type sum;
  each_pack<T>(
      a.size(), [&](std::size_t, auto const& load, std::size_t)
                    __attribute__((always_inline)) { sum.add(load(a), load(b)); });
  return sum.total();
}
/// Reads each number once, which dot_of(x, x) does not where it is called and not inlined.
template <class T>
double sum_of_squares_of(std::span<T const> x) {
  typename simd::loop_traits<simd::pack_of<T>>::sum_type sum;
  each_pack<T>(
      x.size(), [&](std::size_t, auto const& load, std::size_t) __attribute__((always_inline)) {
        simd::pack_of<T> const number = load(x);
        sum.add(number, number);
      });
  return sum.total();
}
template <class T>
double sum_of(std::span<T const> x) {
  typename simd::loop_traits<simd::pack_of<T>>::sum_type sum;
  each_pack<T>(
      x.size(), [&](std::size_t, auto const& load, std::size_t)
                    __attribute__((always_inline)) { sum.add(load(x), T{1}); });
  return sum.total();
}
// Overloads, so that what converts to a span may be given.
/// The sum of a[i] b[i], in double precision.
inline double dot(std::span<float const> a, std::span<float const> b) { return dot_of<float>(a, b); }
inline double dot(std::span<double const> a, std::span<double const> b) { return dot_of<double>(a, b); }
/// The sum of x[i], in double precision.
inline double sum(std::span<float const> x) { return sum_of<float>(x); }
inline double sum(std::span<double const> x) { return sum_of<double>(x); }
/// The sum of x[i]^2, in double precision.
inline double sum_of_squares(std::span<float const> x) { return sum_of_squares_of<float>(x); }
inline double sum_of_squares(std::span<double const> x) { return sum_of_squares_of<double>(x); }
/// The largest f(in[i]…), none of which is negative, nor f(0…); 0 if there is none.
template <class T, class F, class... In>
inline T largest_of(F const& f, std::span<T const> first, In const&... in) {
  using pack = simd::pack_of<T>;
  pack most = T{0};
  each_pack<T>(
      first.size(), [&](std::size_t, auto const& load, std::size_t)
                        __attribute__((always_inline)) { most = simd::max(most, f(load(first), load(in)...)); });
  T lanes[pack::lanes];
  most.store(lanes);
  return *std::max_element(lanes, lanes + pack::lanes);
}

}  // namespace dovetail::optim::detail

namespace dovetail::optim {
/// The sum of x[i]^2, in double precision.
using detail::sum_of_squares;
}  // namespace dovetail::optim
