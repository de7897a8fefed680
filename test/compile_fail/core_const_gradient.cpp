// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A gradient that cannot be written to.
// first error gcc: a gradient is memory of the list.*s numbers that is not const.*std::vector<float
// first error clang: std::vector<float.*a gradient is memory of the list.*s numbers that is not const
#include <vector>

#include <dovetail/core/parameters.hpp>

using namespace dovetail;
#ifdef FAIL
inline void give(parameter_list& p, std::vector<float>& w, std::vector<float> const& g) { p.add("w", w, g); }
#else
inline void give(parameter_list& p, std::vector<float>& w, std::vector<float>& g) { p.add("w", w, g); }
#endif
