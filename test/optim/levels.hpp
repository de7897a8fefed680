// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace levels {
/// The weights after some steps of every rule, by name. One source, levels_run.cpp, built for several processors.
using ways = std::vector<std::pair<std::string, std::vector<float>>>;
ways baseline();    ///< for any processor, and nothing else
ways dispatched();  ///< the same, with the wider loops that are taken where the processor has them
ways avx2();        ///< for AVX2 and fused multiply-adds
ways bits();        ///< for the processor of test/aarch64/bits.cpp
}  // namespace levels
