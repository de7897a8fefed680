// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/data/memory.hpp>
#include <dovetail/data/text_corpus.hpp>
#include <dovetail/dovetail.hpp>

namespace test {

namespace nn = dovetail::nn;

/// Everything that could make replicas differ is in here: convolution, pooling, dropout, and a recurrent sibling.
using images_net = nn::network<nn::shape{1, 10, 10}, nn::conv<4, 3>, nn::relu, nn::max_pool<2>, nn::flatten,
                               nn::dense<24>, nn::tanh, nn::dropout<0.25f>, nn::dense<4>>;
using images_net_without_noise = nn::network<nn::shape{1, 10, 10}, nn::conv<4, 3>, nn::relu, nn::max_pool<2>,
                                             nn::flatten, nn::dense<24>, nn::tanh, nn::dense<4>>;
/// Blocks in blocks' places, running statistics and noise.
using blocks_net = nn::network<
    nn::shape{1, 10, 10}, nn::conv<4, 3>, nn::batch_norm<>, nn::relu,
    nn::residual<nn::conv<4, 3, 1, 1>, nn::batch_norm<>, nn::relu, nn::dropout<0.25f>, nn::conv<4, 3, 1, 1>>,
    nn::residual<nn::shortcut<nn::conv<6, 1, 2>>, nn::conv<6, 3, 2, 1>, nn::batch_norm<>>, nn::relu, nn::flatten,
    nn::dense<4>>;
using text_net = nn::network<nn::shape{12}, nn::embedding<16, 8>, nn::lstm<20>, nn::dense<16>>;

/// Four kinds of blob on noise; 61 samples, so that no batch divides it.
inline dovetail::data::in_memory images(int samples = 61) {
  dovetail::random_stream const random{11};
  std::vector<float> values;
  std::vector<std::int32_t> targets;
  for (int s = 0; s < samples; ++s) {
    int const kind = s % 4, cx = 2 + 5 * (kind % 2), cy = 2 + 5 * (kind / 2);
    targets.push_back(kind);
    for (int y = 0; y < 10; ++y)
      for (int x = 0; x < 10; ++x) {
        bool const inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 5;
        values.push_back((inside ? 1.f : 0.f) + 0.3f * random.uniform(values.size()));
      }
  }
  return {std::move(values), std::move(targets), 100};
}

inline dovetail::data::text_corpus text() {
  std::string all;
  for (int i = 0; i < 60; ++i) all += "a rank is a thread, or it is a process; ";
  return dovetail::data::text_corpus::from_string(all, {.window = 12, .stride = 7, .vocabulary = 16});
}

template <class Net>
Net initialized(std::uint64_t seed = 3) {
  Net net;
  net.initialize(seed);
  return net;
}

/// FNV-1a over the bits: equal digests mean equal bits.
inline std::uint64_t digest(std::span<float const> values, std::uint64_t h = 14695981039346656037ull) {
  for (float v : values) h = (h ^ std::bit_cast<std::uint32_t>(v)) * 1099511628211ull;
  return h;
}
inline std::uint64_t digest(dovetail::parameter_list const& parameters) {
  std::uint64_t h = 14695981039346656037ull;
  for (auto const& p : parameters) h = digest(p.weight, h);
  return h;
}

}  // namespace test
