// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A weight of other numbers.
// first error gcc: a weight must convert to std::span<float>.*std::vector<double
// first error clang: std::vector<double.*a weight must convert to std::span<float>
#include <vector>

#include <dovetail/core/parameters.hpp>

using namespace dovetail;
#ifdef FAIL
inline void give(parameter_list& p, std::vector<double>& w, std::vector<double>& g) { p.add("w", w, g, {2, 2}); }
#else
inline void give(parameter_list& p, std::vector<float>& w, std::vector<float>& g) { p.add("w", w, g, {2, 2}); }
#endif
