// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The rules' weights after some steps, made by several compilations: one for any processor (rules/part.cpp), others of
// levels_run.cpp.
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim/step.hpp>

namespace levels {
inline void fill(std::span<float> x, std::uint32_t stream) {
  dovetail::random_stream const r{11, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * r.uniform(i) - 1;
}
template <class Rule>
std::vector<float> after(Rule const& rule, std::uint32_t steps) {
  dovetail::arena a({{"a", {1}}, {"b", {37, 9}}, {"c", {5001}}});
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (std::uint32_t t = 1; t <= steps; ++t) {
    fill(a.gradients(), 100 + t);
    rule.step(a.parameters(), state, {.loss = 1 + dovetail::random_stream{11, 99}.uniform(t)});
  }
  return {a.weights().begin(), a.weights().end()};
}

/// The weights after some steps of every rule, by name.
using ways = std::vector<std::pair<std::string, std::vector<float>>>;
ways dispatched();  ///< any processor's, with the wider loops that are taken where the processor has them
ways avx2();        ///< for AVX2 and fused multiply-adds
ways bits();        ///< for the processor of test/aarch64/bits.cpp
}  // namespace levels
