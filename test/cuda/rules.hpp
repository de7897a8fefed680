// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>

// The rules that both engines run, those of the library's list and a few chains, and the tensors they run on.
namespace test {

using namespace dovetail;

/// Writes the rule of this name into `out`, which is one: with every hyperparameter away from its default.
void configure(char const* rule, void* out);  // host_rules.cpp
template <class Rule>
Rule configured(char const* name) {
  Rule r{};
  configure(name, &r);
  return r;
}
inline auto momentum() { return configured<optim::momentum>("momentum"); }
inline auto adamw() { return configured<optim::adamw>("adamw"); }
inline auto lars() { return configured<optim::lars>("lars"); }
inline auto lamb() { return configured<optim::lamb>("lamb"); }
inline auto adagrad() { return configured<optim::adagrad>("adagrad"); }
inline auto rprop() { return configured<optim::rprop>("rprop"); }

// Chains: with sums in front, with averages behind, with numbers that are remembered.
inline auto clipped() {
  return optim::chain{optim::skip_non_finite{}, optim::clip_by_global_norm{2},
                      optim::adamw{.lr = optim::linear{.from = 0.02f, .to = 0.001f, .steps = 40}, .epsilon = 1e-3f}};
}
inline auto averaged() {
  return optim::chain{optim::adamw{.lr = 0.01f, .epsilon = 1e-3f}, optim::lookahead{.steps = 4},
                      optim::ema_weights{.decay = 0.9f}};
}
inline auto guarded_prodigy() { return optim::chain{optim::skip_non_finite{}, configured<optim::prodigy>("prodigy")}; }

/// A stage of a program's own, with a schedule and another hyperparameter: u <- gain rate(t) u, in front of a second
/// rate.
struct scale_by_two_numbers {
  using kind = optim::elementwise;
  optim::schedule rate = 1;
  float gain = 1;
  struct kernel {
    float rate = 0, gain = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u) const {
      return gain * (rate * u);
    }
  };
  DOVETAIL_HD constexpr kernel prepare(std::int64_t, float r) const { return {r, gain}; }
  float learning_rate(std::int64_t t) const { return rate(t - 1); }
};
inline auto two_rates() {
  return optim::chain{scale_by_two_numbers{optim::cosine{.initial = 0.5f, .steps = 30}, 3.0f},
                      optim::momentum{.lr = optim::linear{.from = 0.1f, .to = 0.01f, .steps = 20}, .momentum = 0.8f}};
}

// With the gradient beside the update.
inline auto cautious_adamw() {
  return optim::chain{optim::scale_by_adam{.beta2 = 0.95f, .epsilon = 1e-3f}, optim::cautious{},
                      optim::add_decayed_weights{0.02f}, optim::scale_by_learning_rate{0.01f}};
}
inline auto grams_qhm() {
  return optim::chain{optim::scale_by_qhm{.nu = 0.8f, .beta = 0.8f}, optim::grams{},
                      optim::scale_by_learning_rate{0.01f}};
}

#define DOVETAIL_TEST_CHAINS(CHAIN) \
  CHAIN(clipped) CHAIN(averaged) CHAIN(guarded_prodigy) CHAIN(two_rates) CHAIN(cautious_adamw) CHAIN(grams_qhm)

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
template <class Space = host_memory>
basic_parameter_list<float, Space> list(float* weight, float* gradient, std::size_t gap = 0, Space where = {}) {
  basic_parameter_list<float, Space> p(where);
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

/// A rule of the library's list or one of the chains, as the host's engine runs it (host_rules.cpp: compiled by the
/// host's own compiler).
outcome on_host(std::string const& name, int steps, int poisoned_step = -1);

}  // namespace test
