// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/data/memory.hpp>

// A model for tests of synchronizers through the trainer, and data for it.
namespace test {

using namespace dovetail;

/// Pulls every weight towards the sample's value, each with another strength.
struct pulled {
  arena memory{{{"0.weight", {30, 20}}, {"0.bias", {30}}, {"1.weight", {7}}}};
  parameter_list& parameters() { return memory.parameters(); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (!pass.accumulate) std::fill(memory.gradients().begin(), memory.gradients().end(), 0.f);
    for (float const x : b.values)
      for (std::size_t i = 0; i < memory.gradients().size(); ++i)
        memory.gradients()[i] += pass.scale * (memory.weights()[i] - x * static_cast<float>(i % 13 + 1));
    return {1, b.size, 0};
  }
};

inline data::in_memory numbers() {
  std::vector<float> values;
  for (int i = 0; i < 60; ++i) values.push_back(static_cast<float>(i % 7) - 2.5f);
  return {values, std::vector<std::int32_t>(60), 1};
}

}  // namespace test
