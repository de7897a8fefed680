// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/matrix.hpp>

// The rules with tensorwise stages, and the tensors that both engines run them on. Rules whose result would depend on
// which basis of a nullspace a library takes see no such space: SOAP keeps the identity for the longer side, and no
// statistic has fewer rows behind it than its order (of 6 x 12 one would: two LAPACKs were 3.6e-2 apart).
namespace test {

using namespace dovetail;

inline auto muon() { return optim::muon{.lr = 0.02f, .momentum = 0.8f, .weight_decay = 0.02f}; }
inline auto shampoo() {
  return optim::shampoo{.lr = 0.02f, .beta2 = 0.9f, .epsilon = 1e-3f, .interval = 3, .block = 20};
}
inline auto shampoo_rmsprop() {
  return optim::shampoo{.lr = 0.02f, .epsilon = 1e-3f, .interval = 2, .grafting = optim::graft::rmsprop};
}
inline auto shampoo_sgd() {
  return optim::shampoo{.lr = 0.02f, .epsilon = 1e-3f, .interval = 2, .grafting = optim::graft::sgd};
}
inline auto soap() { return optim::soap{.lr = 0.02f, .epsilon = 1e-3f, .interval = 3, .largest = 24}; }
inline auto kfac() { return optim::kfac{.lr = 0.01f, .damping = 0.05f, .interval = 3}; }
inline auto ekfac() { return optim::ekfac{.lr = 0.01f, .damping = 0.05f, .interval = 3}; }
inline auto adafactor() { return optim::chain{optim::scale_by_adafactor{}, optim::scale_by_learning_rate{0.05f}}; }
inline auto sm3() { return optim::chain{optim::scale_by_sm3{}, optim::scale_by_learning_rate{0.02f}}; }
inline auto row_wise_adagrad() {
  return optim::chain{optim::scale_by_row_wise_adagrad{1e-3f}, optim::scale_by_learning_rate{0.02f}};
}
/// Two tensorwise stages in a row, and one behind elementwise ones.
inline auto by_rows() {
  return optim::chain{optim::centralize{}, optim::clip_adaptively{.clipping = 0.3f}, optim::scale_by_adam{},
                      optim::add_noise{.eta = 0.1f, .seed = 3}, optim::scale_by_learning_rate{0.02f}};
}
/// Sums before and behind one, and a step that may be skipped.
inline auto guarded() {
  return optim::chain{optim::skip_non_finite{},
                      optim::clip_by_global_norm{2},
                      optim::scale_by_qhm{.nu = 0.8f, .beta = 0.8f},
                      optim::orthogonalize{},
                      optim::normalize_per_tensor{},
                      optim::scale_by_learning_rate{optim::linear{.from = 0.2f, .to = 0.02f, .steps = 10}}};
}
inline constexpr int guarded_number = 11;
/// The gradient beside a stored update.
inline auto cautious_rows() {
  return optim::chain{optim::centralize{}, optim::scale_by_qhm{.nu = 0.8f, .beta = 0.8f}, optim::cautious{},
                      optim::grams{}, optim::scale_by_learning_rate{0.02f}};
}

#define DOVETAIL_TEST_MATRIX_RULES(RULE) \
  RULE(0, muon)                          \
  RULE(1, shampoo)                       \
  RULE(2, shampoo_rmsprop)               \
  RULE(3, shampoo_sgd)                   \
  RULE(4, soap)                          \
  RULE(5, kfac)                          \
  RULE(6, ekfac)                         \
  RULE(7, adafactor)                     \
  RULE(8, sm3)                           \
  RULE(9, row_wise_adagrad)              \
  RULE(10, by_rows)                      \
  RULE(11, guarded)                      \
  RULE(12, cautious_rows)

inline std::vector<arena::tensor> const tensors{{"0.weight", {24, 24}},      {"0.bias", {24}}, {"none", {0}},
                                                {"1.weight", {10, 40}},      {"1.bias", {10}}, {"2.weight", {40, 10}},
                                                {"3.weight", {12, 3, 2, 2}}, {"odd", {33}},    {"one", {1}},
                                                {"4.weight", {70, 300}}};

/// Between -1 and 1, some exact zeros.
inline void fill(std::span<float> x, std::uint64_t stream) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto n = (i + 1) * 0x9E3779B97F4A7C15u + stream * 0xD1B54A32D192ED03u;
    n = (n ^ (n >> 30)) * 0xBF58476D1CE4E5B9u;
    n = (n ^ (n >> 27)) * 0x94D049BB133111EBu;
    n ^= n >> 31;
    x[i] = n % 97 == 0 ? 0.0f : static_cast<float>(static_cast<std::int64_t>(n >> 40) - (1 << 23)) / float(1 << 23);
  }
}

/// What backward shows of tensor i in step t; pointers to the caller's copies.
struct layer {
  std::vector<float> inputs, gradients;
  kfac_statistics factors;

  layer(parameter const& p, std::size_t first, int t)
      : inputs(static_cast<std::size_t>(rows * p.shape.size() / p.shape[0])),
        gradients(static_cast<std::size_t>(rows * p.shape[0])) {
    fill(inputs, static_cast<std::uint64_t>(3000 + t));
    fill(gradients, static_cast<std::uint64_t>(4000 + t));
    factors = {.first = first,
               .rows = rows,
               .in = p.shape.size() / p.shape[0],
               .out = p.shape[0],
               .inputs = inputs.data(),
               .output_gradients = gradients.data(),
               .scale = 0.25f};
  }
  static constexpr std::int64_t rows = 400;
  static bool of(parameter const& p) { return p.shape.rank >= 2 && p.size() > 0; }
};

/// What the host's engine makes of it.
struct matrix_outcome {
  std::vector<float> weight;
  optim::state state;
  optim::step_result last;
};
matrix_outcome on_host(int rule, int steps, int poisoned_step = -1);

}  // namespace test
