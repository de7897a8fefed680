// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

// What the tests of networks share: batches of noise, and gradients by central differences.
namespace differences {

using dovetail::batch;
using dovetail::gradient_pass;
using dovetail::random_stream;

/// A batch that owns its memory.
struct data {
  std::vector<float> values;
  std::vector<std::int32_t> tokens, targets;
  std::int64_t size = 0;
  operator batch() const { return {size, values, tokens, targets}; }
};

/// `size` samples of noise for a network, with targets below `classes`.
template <class Network>
data noise(std::int64_t size, std::int32_t classes, std::int32_t vocabulary = 0, std::uint64_t seed = 1) {
  data d;
  d.size = size;
  auto const n = static_cast<std::size_t>(size * Network::input_shape.size());
  random_stream const values{seed, 0}, tokens{seed, 1}, targets{seed, 2};
  if (Network::input_is_tokens)
    for (std::size_t i = 0; i < n; ++i)
      d.tokens.push_back(static_cast<std::int32_t>(tokens.word(i) % static_cast<std::uint32_t>(vocabulary)));
  else
    for (std::size_t i = 0; i < n; ++i) d.values.push_back(2 * values.uniform(i) - 1);
  for (std::size_t i = 0; i < static_cast<std::size_t>(size * Network::positions); ++i)
    d.targets.push_back(static_cast<std::int32_t>(targets.word(i) % static_cast<std::uint32_t>(classes)));
  return d;
}

/// The largest distance between the model's gradients and central differences of its loss, per tensor relative to the
/// tensor's largest difference. At most `most` weights of each tensor are tried.
template <class Model>
double worst(Model m, batch const& b, float h = 1e-2f, std::size_t most = 60) {
  m.gradients(b, gradient_pass{});
  auto const gradients = std::vector<float>(m.parameters().flat_gradients().begin(), m.parameters().flat_gradients().end());
  double worst = 0;
  for (std::size_t i = 0; i < m.parameters().size(); ++i) {
    auto const w = m.parameters()[i].weight;
    double distance = 0, largest = 1e-3;
    std::size_t const stride = std::max<std::size_t>(1, w.size() / most);
    for (std::size_t j = 0; j < w.size(); j += stride) {
      float const was = w[j];
      float const above = was + h, below = was - h;
      w[j] = above;
      double const up = m.evaluate(b, 1).loss;
      w[j] = below;
      double const down = m.evaluate(b, 1).loss;
      w[j] = was;
      double const slope = (up - down) / (static_cast<double>(above) - static_cast<double>(below));
      largest = std::max(largest, std::abs(slope));
      distance = std::max(distance, std::abs(slope - static_cast<double>(gradients[m.parameters().offset(i) + j])));
    }
    worst = std::max(worst, distance / largest);
  }
  return worst;
}

}  // namespace differences
