// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/half.hpp>

// Whether a number is finite: the one place of the library that tests it. -Ofast and -ffast-math let a compiler assume
// that no number is NaN or infinite, and std::isfinite, x != x and a comparison with infinity are then decided at
// compile time. These tests look at bits that the compiler does not know the origin of, so they hold under any flags.

namespace dovetail {

namespace detail {
/// Whether flags let the compiler assume that no number is NaN or infinite.
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
constexpr bool finite_only = true;
#else
constexpr bool finite_only = false;
#endif

/// The bits of a number. To the compiler they come from nowhere: Clang 19 concludes from -ffast-math that a result of
/// arithmetic has no exponent of all ones, and folds a test of its bits.
template <class Bits, class Number>
DOVETAIL_HD constexpr Bits bits_of(Number const& x) {
  auto bits = std::bit_cast<Bits>(x);
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDA_ARCH__)
  if (!std::is_constant_evaluated()) __asm__("" : "+r"(bits));
#endif
  return bits;
}
inline constexpr std::uint32_t float_infinity = 0x7f800000u;
inline constexpr std::uint64_t double_infinity = 0x7ff0000000000000u;
}  // namespace detail

/// True unless x is NaN or infinite.
DOVETAIL_HD constexpr bool is_finite(float const& x) {
  return (detail::bits_of<std::uint32_t>(x) & detail::float_infinity) != detail::float_infinity;
}
DOVETAIL_HD constexpr bool is_finite(double const& x) {
  return (detail::bits_of<std::uint64_t>(x) & detail::double_infinity) != detail::double_infinity;
}
DOVETAIL_HD constexpr bool is_finite(fp16 x) { return (x.bits & 0x7c00u) != 0x7c00u; }
DOVETAIL_HD constexpr bool is_finite(bf16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }

DOVETAIL_HD constexpr bool is_nan(float const& x) {
  return (detail::bits_of<std::uint32_t>(x) & 0x7fffffffu) > detail::float_infinity;
}
DOVETAIL_HD constexpr bool is_nan(double const& x) {
  return (detail::bits_of<std::uint64_t>(x) & 0x7fffffffffffffffu) > detail::double_infinity;
}
DOVETAIL_HD constexpr bool is_nan(fp16 x) { return (x.bits & 0x7fffu) > 0x7c00u; }
DOVETAIL_HD constexpr bool is_nan(bf16 x) { return (x.bits & 0x7fffu) > 0x7f80u; }

/// Infinity and NaN by their bits, which the compiler does not see either: Clang takes a function that must return one
/// for one that never returns. To compare with them is up to is_finite and is_nan.
template <class Number>
DOVETAIL_HD constexpr Number positive_infinity() {
  if constexpr (std::is_same_v<Number, float>)
    return std::bit_cast<float>(detail::bits_of<std::uint32_t>(detail::float_infinity));
  else
    return std::bit_cast<double>(detail::bits_of<std::uint64_t>(detail::double_infinity));
}
template <class Number>
DOVETAIL_HD constexpr Number not_a_number() {
  if constexpr (std::is_same_v<Number, float>)
    return std::bit_cast<float>(detail::bits_of<std::uint32_t>(detail::float_infinity | 0x400000u));
  else
    return std::bit_cast<double>(detail::bits_of<std::uint64_t>(detail::double_infinity | 0x8000000000000u));
}

namespace detail {
/// `Word` is an unsigned integer of T's size, `infinity` the bits of T's.
template <class Word, Word infinity, class T>
bool all_finite(std::span<T const> values) {
#if defined(__GNUC__) || defined(__clang__)
  typedef Word words __attribute__((vector_size(64)));
  constexpr std::size_t width = 64 / sizeof(Word);
#else
  using words = Word;
  constexpr std::size_t width = 1;
#endif
  // Adding one unit to the exponent carries into the sign bit exactly when the exponent is all ones.
  constexpr Word sign = Word{1} << (8 * sizeof(Word) - 1), magnitude = sign - 1, unit = sign - infinity;
  words seen{};
  std::size_t i = 0;
  for (; i + width <= values.size(); i += width) {
    words w;
    std::memcpy(&w, values.data() + i, sizeof w);
    seen |= (w & magnitude) + unit;
  }
  Word any = 0;
  Word lanes[width];
  std::memcpy(lanes, &seen, sizeof seen);
  for (auto lane : lanes) any |= lane;
  for (; i < values.size(); ++i) {
    Word w;
    std::memcpy(&w, values.data() + i, sizeof w);
    any |= (w & magnitude) + unit;
  }
  return (any & sign) == 0;
}
}  // namespace detail

/// True when no element is NaN or infinite. Tests exponent bits, so it does not depend on floating-point flags, and
/// works on explicit vectors, so it runs at memory speed at plain -O2.
inline bool all_finite(std::span<float const> values) {
  return detail::all_finite<std::uint32_t, detail::float_infinity>(values);
}
inline bool all_finite(std::span<double const> values) {
  return detail::all_finite<std::uint64_t, detail::double_infinity>(values);
}

}  // namespace dovetail
