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

#include "nn/reference.hpp"

// Batches of noise, and gradients by central differences of the reference in double precision.
namespace differences {

using dovetail::gradient_pass;
using dovetail::random_stream;
using dovetail::data::batch;

/// A batch that owns its memory.
struct data {
  std::vector<float> values;
  std::vector<std::int32_t> tokens, targets;
  std::int64_t size = 0;
  operator batch() const { return {size, values, tokens, targets}; }
};

/// `size` samples of noise for a network.
template <class Network>
data noise(std::int64_t size, std::int32_t vocabulary = 0, std::uint64_t seed = 1) {
  data d;
  d.size = size;
  auto const n = static_cast<std::size_t>(size * Network::input_shape.size());
  random_stream const values{seed, 0}, tokens{seed, 1}, targets{seed, 2};
  auto const below = [](random_stream const& s, std::size_t i, std::int64_t limit) {
    return static_cast<std::int32_t>(s.word(i) % static_cast<std::uint32_t>(limit));
  };
  for (std::size_t i = 0; i < n; ++i)
    if (Network::input_is_tokens)
      d.tokens.push_back(below(tokens, i, vocabulary));
    else
      d.values.push_back(2 * values.uniform(i) - 1);
  for (std::size_t i = 0; i < static_cast<std::size_t>(size * Network::positions); ++i)
    d.targets.push_back(below(targets, i, dovetail::nn::width(Network::output_shape)));
  return d;
}

/// How far a model's loss and gradients are from the reference's: the loss relatively, the gradients relative to the
/// largest of their tensor. Gradients of the reference are central differences of at most `most` weights of a tensor.
struct distance {
  double loss = 0, gradient = 0;
  std::string tensor;  ///< the worst
};
template <class Model>
distance from_reference(Model m, batch const& b, gradient_pass const& pass = {}, std::size_t most = 150) {
  using network = decltype(m.network);
  auto& list = m.parameters();
  auto const before = std::vector<float>(list.flat_gradients().begin(), list.flat_gradients().end());
  double const loss = m.gradients(b, pass).loss;
  reference::values w(list.flat_weights().begin(), list.flat_weights().end());
  double const expected = reference::loss<network>(w, b);
  distance d{std::abs(loss - expected) / std::max(1.0, std::abs(expected)), 0, ""};
  constexpr double h = 1e-5;
  for (std::size_t i = 0; i < list.size(); ++i) {
    double worst = 0, largest = 1e-6;
    for (std::size_t j = 0; j < list[i].size(); j += std::max<std::size_t>(1, list[i].size() / most)) {
      double& x = w[list.offset(i) + j];
      double const was = x;
      x = was + h;
      double const up = reference::loss<network>(w, b);
      x = was - h;
      double const down = reference::loss<network>(w, b);
      x = was;
      double slope = static_cast<double>(pass.scale) * (up - down) / (2 * h);
      if (pass.accumulate) slope += static_cast<double>(before[list.offset(i) + j]);
      largest = std::max(largest, std::abs(slope));
      worst = std::max(worst, std::abs(slope - static_cast<double>(list[i].gradient[j])));
    }
    if (worst / largest > d.gradient) d = {d.loss, worst / largest, list[i].name};
  }
  return d;
}

}  // namespace differences
