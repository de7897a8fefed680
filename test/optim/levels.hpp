// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace levels {
/// The weights after some steps of every rule, by name. One source, levels_run.cpp, built for several processors.
using ways = std::vector<std::pair<std::string, std::vector<float>>>;
ways baseline();
ways avx2();
}  // namespace levels
