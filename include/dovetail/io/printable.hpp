// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace dovetail::io::detail {

/// Bytes of the UTF-8 character that `s` begins with; 0 if it begins with none.
inline std::size_t utf8_length(std::string_view s) {
  auto const byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  unsigned const first = byte(0);
  if (first < 0x80) return 1;
  std::size_t const n = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  for (std::size_t i = 1; i < n; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Forms longer than needed, halves of surrogate pairs, and what lies behind the last character.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) || (first == 0xf0 && byte(1) < 0x90) ||
      (first == 0xf4 && byte(1) > 0x8f))
    return 0;
  return n;
}

/// Text from outside as one line of UTF-8: a control character becomes a space, a byte that is no text U+FFFD. Formats
/// whose readers refuse a whole file for one such byte get their names through this.
inline std::string printable(std::string_view s) {
  std::string line;
  while (!s.empty()) {
    std::size_t const n = utf8_length(s);
    bool const control = static_cast<unsigned char>(s[0]) < 0x20 || s[0] == '\x7f';
    line += n == 0 ? std::string_view("\xef\xbf\xbd") : control ? std::string_view(" ") : s.substr(0, n);
    s.remove_prefix(n == 0 ? 1 : n);
  }
  return line;
}

}  // namespace dovetail::io::detail
