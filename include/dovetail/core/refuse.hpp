// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

// DOVETAIL_REQUIRE: policies that do not fit are refused in the first line of the compiler's output.
namespace dovetail {

/// A string literal as a template argument.
template <std::size_t N>
struct fixed_string {
  char text[N]{};
  constexpr fixed_string(char const (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
};

namespace detail {
/// Never defined: its name in a compiler's first error line says which policies do not fit, and why.
template <fixed_string Reason, class... Policies>
struct refused;

template <bool Fits, fixed_string Reason, class... Policies>
struct fits_or_refused {};
template <fixed_string Reason, class... Policies>
struct fits_or_refused<false, Reason, Policies...> : refused<Reason, Policies...> {};
template <bool Fits, class... Policies>
inline constexpr bool fits = Fits;
}  // namespace detail

}  // namespace dovetail

/// Like static_assert(condition, reason), but the *first line* of the error names the policies as well.
/// GCC prints no types for a static_assert and Clang shortens strings in template arguments, so each
/// gets the form in which its first line is complete.
#if defined(__clang__)
#define DOVETAIL_REQUIRE(condition, reason, ...) \
  static_assert(::dovetail::detail::fits<(condition), __VA_ARGS__>, reason)
#else
#define DOVETAIL_REQUIRE(condition, reason, ...) \
  static_assert(sizeof(::dovetail::detail::fits_or_refused<(condition), reason, __VA_ARGS__>) > 0, reason)
#endif
