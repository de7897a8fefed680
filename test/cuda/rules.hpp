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

inline auto lion() { return optim::lion{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .weight_decay = 0.02f}; }
inline auto adadelta() { return optim::adadelta{.lr = 0.5f, .rho = 0.8f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto rprop() { return optim::rprop{.initial_step = 0.01f, .shrink = 0.4f, .grow = 1.3f}; }
inline auto centered() {
  return optim::rmsprop_centered{.lr = 0.01f, .alpha = 0.9f, .momentum = 0.5f, .epsilon = 1e-2f, .weight_decay = 0.02f};
}
inline auto nadam() { return optim::nadam{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto radam() { return optim::radam{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto ademamix() {
  return optim::ademamix{.lr = 0.01f, .beta2 = 0.95f, .beta3 = 0.99f, .warmup = 10, .epsilon = 1e-3f};
}
inline auto adopt() { return optim::adopt{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto adan() { return optim::adan{.lr = 0.01f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto schedule_free() {
  return optim::schedule_free_adamw{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .warmup = 5, .weight_decay = 0.02f};
}
inline auto averaged() {
  return optim::chain{optim::adamw{.lr = 0.01f, .epsilon = 1e-3f}, optim::lookahead{.steps = 4},
                      optim::ema_weights{.decay = 0.9f}};
}
inline auto sign_sgd() { return optim::sign_sgd{.lr = 0.01f, .weight_decay = 0.02f}; }
inline auto signum() { return optim::signum{.lr = 0.01f, .momentum = 0.8f, .weight_decay = 0.02f}; }
inline auto qhm() { return optim::qhm{.lr = 0.01f, .nu = 0.6f, .beta = 0.9f, .weight_decay = 0.02f}; }
inline auto adagrad() {
  return optim::adagrad{.lr = 0.02f, .initial_accumulator = 0.1f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto rmsprop() { return optim::rmsprop{.lr = 0.01f, .alpha = 0.9f, .epsilon = 1e-2f, .weight_decay = 0.02f}; }
inline auto adamax() {
  return optim::adamax{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto amsgrad() {
  return optim::amsgrad{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto adabound() {
  return optim::adabound{.lr = 0.01f, .final_ratio = 2, .gamma = 0.1f, .beta2 = 0.95f, .epsilon = 1e-3f};
}
inline auto adabelief() {
  return optim::adabelief{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto yogi() { return optim::yogi{.lr = 0.01f, .beta2 = 0.95f, .weight_decay = 0.02f}; }
inline auto qhadam() {
  return optim::qhadam{.lr = 0.01f, .nu2 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto schedule_free_sgd() {
  return optim::schedule_free_sgd{.lr = 0.05f, .beta = 0.8f, .warmup = 5, .weight_decay = 0.02f};
}
inline auto rmsprop_momentum() {
  return optim::rmsprop_momentum{.lr = 0.01f, .alpha = 0.9f, .momentum = 0.5f, .epsilon = 1e-2f, .weight_decay = 0.02f};
}
// Sums of a stage's own, numbers that it remembers, several factors.
inline auto novograd() {
  return optim::novograd{.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.9f, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto larc() {
  return optim::larc{.lr = 0.05f, .momentum = 0.8f, .weight_decay = 0.02f, .trust_coefficient = 0.05f};
}
inline auto lans() { return optim::lans{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto prodigy() {
  return optim::prodigy{.beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f, .initial_d = 0.01f};
}
inline auto guarded_prodigy() { return optim::chain{optim::skip_non_finite{}, prodigy()}; }

// A power; state of other kinds; ends of a chain of their own; distances.
inline auto padam() { return optim::padam{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto amsbound() {
  return optim::amsbound{.lr = 0.01f, .final_ratio = 2, .gamma = 0.1f, .beta2 = 0.95f, .epsilon = 1e-3f};
}
inline auto nadamax() { return optim::nadamax{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto simplified_ademamix() {
  return optim::simplified_ademamix{.lr = 1e-3f, .alpha = 2, .epsilon = 1e-3f, .weight_decay = 0.02f};
}
inline auto acprop() { return optim::acprop{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto optimistic_adam() {
  return optim::optimistic_adam{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .optimism = 0.5f, .weight_decay = 0.02f};
}
inline auto ftml() { return optim::ftml{.lr = 0.01f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto swats() {
  return optim::swats{.lr = 0.01f, .beta2 = 0.9f, .epsilon = 1e-3f, .tolerance = 1, .weight_decay = 0.02f};
}
inline auto optimistic_sgd() { return optim::optimistic_sgd{.lr = 0.02f, .beta = 0.5f, .weight_decay = 0.02f}; }
inline auto demon() { return optim::demon{.lr = 0.02f, .momentum = 0.8f, .steps = 12, .weight_decay = 0.02f}; }
inline auto entropy_sgd() {
  return optim::entropy_sgd{.lr = 0.05f, .outer_lr = 0.8f, .steps = 4, .scope = 0.1f, .scope_growth = 0.1f};
}
inline auto ftrl() { return optim::ftrl{.lr = 0.3f, .beta = 1, .l1 = 2, .l2 = 0.2f}; }  // beta + lr l2 shows fusing
inline auto wngrad() { return optim::wngrad{.initial = 100, .weight_decay = 0.02f}; }
inline auto adagrad_norm() { return optim::adagrad_norm{.initial = 0.5f, .weight_decay = 0.02f}; }
inline auto dog() { return optim::dog{.reach = 1e-3f, .weight_decay = 0.02f}; }
inline auto dowg() { return optim::dowg{.initial_square = 1e-2f, .weight_decay = 0.02f}; }
inline auto dadapt_adamw() {
  return optim::dadapt_adamw{.beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.02f, .initial_d = 0.01f};
}
inline auto cocob() { return optim::cocob{.alpha = 20, .weight_decay = 0.02f}; }
inline auto smorms3() { return optim::smorms3{.lr = 0.01f, .epsilon = 1e-3f, .weight_decay = 0.02f}; }
inline auto fromage() { return optim::fromage{.lr = 0.02f}; }
inline auto percent_delta() { return optim::percent_delta{.lr = 0.01f, .momentum = 0.8f, .weight_decay = 0.02f}; }

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

// By number: 0 to 7 are named in the tests.
#define DOVETAIL_TEST_RULES(RULE) \
  RULE(0, sgd)                    \
  RULE(1, momentum)               \
  RULE(2, nesterov)               \
  RULE(3, adam)                   \
  RULE(4, adamw)                  \
  RULE(5, lars)                   \
  RULE(6, lamb)                   \
  RULE(7, clipped)                \
  RULE(8, lion)                   \
  RULE(9, adadelta)               \
  RULE(10, rprop)                 \
  RULE(11, centered)              \
  RULE(12, nadam)                 \
  RULE(13, radam)                 \
  RULE(14, ademamix)              \
  RULE(15, adopt)                 \
  RULE(16, adan)                  \
  RULE(17, schedule_free)         \
  RULE(18, averaged)              \
  RULE(19, sign_sgd)              \
  RULE(20, signum)                \
  RULE(21, qhm)                   \
  RULE(22, adagrad)               \
  RULE(23, rmsprop)               \
  RULE(24, adamax)                \
  RULE(25, amsgrad)               \
  RULE(26, adabound)              \
  RULE(27, adabelief)             \
  RULE(28, yogi)                  \
  RULE(29, qhadam)                \
  RULE(30, schedule_free_sgd)     \
  RULE(31, rmsprop_momentum)      \
  RULE(32, novograd)              \
  RULE(33, larc)                  \
  RULE(34, lans)                  \
  RULE(35, prodigy)               \
  RULE(36, guarded_prodigy)       \
  RULE(37, padam)                 \
  RULE(38, amsbound)              \
  RULE(39, nadamax)               \
  RULE(40, simplified_ademamix)   \
  RULE(41, acprop)                \
  RULE(42, optimistic_adam)       \
  RULE(43, ftml)                  \
  RULE(44, swats)                 \
  RULE(45, optimistic_sgd)        \
  RULE(46, demon)                 \
  RULE(47, entropy_sgd)           \
  RULE(48, ftrl)                  \
  RULE(49, wngrad)                \
  RULE(50, adagrad_norm)          \
  RULE(51, dog)                   \
  RULE(52, dowg)                  \
  RULE(53, cocob)                 \
  RULE(54, smorms3)               \
  RULE(55, fromage)               \
  RULE(56, percent_delta)         \
  RULE(57, dadapt_adamw)          \
  RULE(58, two_rates)             \
  RULE(59, cautious_adamw)        \
  RULE(60, grams_qhm)

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
