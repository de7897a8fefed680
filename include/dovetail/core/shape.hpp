// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail {

/// Extents of a tensor, outermost first: shape{out, in} for a dense weight, shape{1, 28, 28} for an image.
/// A structural type, so that it can be a template argument; rank 0 is a scalar of one element.
struct shape {
  static constexpr int max_rank = 6;
  std::int64_t extents[max_rank]{};
  int rank = 0;

  constexpr shape() = default;
  template <class... I>
  requires(sizeof...(I) > 0 && sizeof...(I) <= max_rank) constexpr shape(I... e)
      : extents{static_cast<std::int64_t>(e)...}, rank(sizeof...(I)) {}

  constexpr std::int64_t operator[](int i) const { return extents[i]; }
  constexpr std::int64_t& operator[](int i) { return extents[i]; }
  /// Number of elements.
  constexpr std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= extents[i];
    return n;
  }
  /// Throws argument_error behind the last dimension that there can be.
  constexpr void push_back(std::int64_t e) {
    if (rank >= max_rank)
      throw argument_error(message("shape ", *this, ": a tensor has at most ", max_rank, " dimensions"));
    extents[rank++] = e;
  }
  friend constexpr bool operator==(shape const&, shape const&) = default;
  DOVETAIL_COLD friend void append_text(std::string& out, shape const& s) {
    out += '{';
    for (int i = 0; i < s.rank; ++i) {
      if (i) out += ", ";
      detail::part(s.extents[i]).append_to(out);
    }
    out += '}';
  }
  template <class Traits>  // so that <ostream> is needed where a shape is printed only
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, shape const& s) {
    std::string text;
    append_text(text, s);
    return out << text;
  }
};

/// The extents in the other order: of a matrix, its transpose's.
constexpr shape reversed(shape const& s) {
  shape r = s;
  for (int i = 0; i < s.rank; ++i) r[i] = s[s.rank - 1 - i];
  return r;
}

}  // namespace dovetail
