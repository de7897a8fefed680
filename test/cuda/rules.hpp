// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>

// The rules that both engines run, and the tensors they run on. Every hyperparameter is away from its default.
namespace test {

using namespace dovetail;

inline auto sgd() { return optim::sgd{.lr = 0.05f, .weight_decay = 0.02f}; }
inline auto momentum() {
  return optim::momentum{.lr = 0.02f, .momentum = 0.8f, .dampening = 0.1f, .weight_decay = 0.02f};
}
inline auto nesterov() { return optim::nesterov{.lr = 0.02f, .momentum = 0.8f, .weight_decay = 0.02f}; }
inline auto adam() {
  return optim::adam{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto adamw() {
  return optim::adamw{
      .lr = optim::cosine{.initial = 0.01f, .steps = 30}, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f};
}
inline auto lars() { return optim::lars{.lr = 0.5f, .weight_decay = 0.02f, .trust_coefficient = 0.02f}; }
inline auto lamb() { return optim::lamb{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto clipped() {
  return optim::chain{optim::skip_non_finite{}, optim::clip_by_global_norm{2},
                      optim::adamw{.lr = optim::linear{.from = 0.02f, .to = 0.001f, .steps = 40}, .epsilon = 1e-3f}};
}

/// Empty, tiny, odd, and of several pieces of the device's launch.
inline std::vector<std::size_t> const sizes{1, 3, 0, 31, 32, 33, 257, 1000, 50001, 4, 16384, 16385, 70000};
inline std::size_t total() {
  std::size_t n = 0;
  for (auto const s : sizes) n += s;
  return n;
}

/// Between -1 and 1; some exact zeros.
inline float value(std::uint64_t stream, std::size_t i) {
  auto x = (i + 1) * 0x9E3779B97F4A7C15u + stream * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  return x % 97 == 0 ? 0.0f : static_cast<float>(static_cast<std::int64_t>(x >> 40) - (1 << 23)) / float(1 << 23);
}
inline std::vector<float> values(std::uint64_t stream) {
  std::vector<float> v(total());
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = value(stream, i);
  return v;
}
inline std::vector<float> gradients(int step) { return values(1000 + static_cast<std::uint64_t>(step)); }

/// The tensors one after the other in one block each, or with `gap` unused elements behind each.
inline parameter_list list(float* weight, float* gradient, std::size_t gap = 0) {
  parameter_list p;
  std::size_t at = 0;
  for (std::size_t i = 0; i < sizes.size(); at += sizes[i++] + gap)
    p.add("tensor." + std::to_string(i), {weight + at, sizes[i]}, {gradient + at, sizes[i]});
  return p;
}

/// What the host's engine makes of it: weights and slots of all tensors in flat order.
struct outcome {
  std::vector<float> weight;
  std::vector<std::vector<float>> slot;
  optim::step_result last;
};

/// The rules by number, as the host's engine runs them (host_rules.cpp: compiled by the host's own compiler).
outcome on_host(int rule, int steps, int poisoned_step = -1);

}  // namespace test
