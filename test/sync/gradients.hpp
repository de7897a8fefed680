// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

namespace test {

/// Tensors of sizes that divide by nothing: 1 + 33 + 7·31 + 1000 + 3 = 1254 parameters.
inline dovetail::arena odd_arena() {
  return dovetail::arena({{"a", {1}}, {"b", {33}}, {"c", {7, 31}}, {"d", {10, 100}}, {"e", {3}}});
}

/// Gradients of rank `rank` at `step`: half of them small, so that sparsifiers have something to leave out.
inline void fill(std::span<float> values, int rank, std::uint64_t step) {
  dovetail::random_stream const random{7, 0, step, static_cast<std::uint32_t>(rank)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    float const u = 2 * random.uniform(i) - 1;
    values[i] = i % 2 ? u : 0.01f * u;
  }
}

}  // namespace test
