// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <span>
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

// Cases have names, so that a program that is slow under a tool can be given those that failed.
inline std::vector<std::string> chosen, all_cases, broken_cases;
/// Reads the names of cases from the command line; none: all.
inline void choose(int argc, char** argv) { chosen.assign(argv + 1, argv + argc); }
/// Runs a case, unless others were chosen. What it throws is its failure, and the next ones run.
template <class F>
void run_case(std::string const& name, F const& f) {
  all_cases.push_back(name);
  if (!chosen.empty() && std::find(chosen.begin(), chosen.end(), name) == chosen.end()) return;
  int const before = failures;
  try {
    f();
  } catch (std::exception const& e) {
    report(false, name, e.what());
  }
  if (failures != before) broken_cases.push_back(name);
}
/// The end of a program: which cases failed, and its exit code.
inline int conclude() {
  for (auto const& name : chosen)
    if (std::find(all_cases.begin(), all_cases.end(), name) == all_cases.end()) {
      report(false, "a case named '" + name + "'", "there is none");
      for (auto const& known : all_cases) std::printf("%s ", known.c_str());
    }
  std::printf("%d failed\n", failures);
  if (!broken_cases.empty()) {
    std::printf("failed cases:");
    for (auto const& name : broken_cases) std::printf(" %s", name.c_str());
    std::printf("\n");
  }
  return failures ? 1 : 0;
}
inline std::string said(char const* what, double x) {
  char text[120];
  std::snprintf(text, sizeof text, "%s %.3g", what, x);
  return text;
}
inline bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace test
