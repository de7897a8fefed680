// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A gradient that cannot be written to.
// first error gcc: a gradient must convert to std::span<float>.*std::vector<float
// first error clang: std::vector<float.*a gradient must convert to std::span<float>
#include <vector>

#include <dovetail/core/parameters.hpp>

using namespace dovetail;
#ifdef FAIL
inline void give(parameter_list& p, std::vector<float>& w, std::vector<float> const& g) { p.add("w", w, g); }
#else
inline void give(parameter_list& p, std::vector<float>& w, std::vector<float>& g) { p.add("w", w, g); }
#endif
