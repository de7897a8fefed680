// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

// What the device's tests share. They are plain programs: machines with a GPU may have no doctest.

namespace test {

inline int failures = 0;
/// One line per case.
inline void report(bool good, std::string const& name, std::string const& detail = {}) {
  failures += !good;
  std::printf("%s  %s%s%s\n", good ? "ok    " : "FAILED", name.c_str(), detail.empty() ? "" : ": ", detail.c_str());
  std::fflush(stdout);
}
inline std::string said(char const* what, double x) {
  char text[120];
  std::snprintf(text, sizeof text, "%s %.3g", what, x);
  return text;
}
inline bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace test
