// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <dovetail/core/half.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/partition.hpp>

#include "rules.hpp"

// Rules in groups, gradients in other formats than fp32, slots and weights in others: what both engines run.
namespace test {

/// The model's weights in halves, and gradients in halves; of a host's or a device's memory.
struct halves {
  std::vector<std::span<bf16>> weights;
  std::vector<std::span<fp16>> weights_fp16;
  std::vector<std::span<bf16 const>> gradients;
  std::vector<std::span<fp16 const>> gradients_fp16;

  halves() = default;
  /// Tensor by tensor, `gap` unused elements behind each.
  halves(bf16* w, fp16* w16, bf16 const* g, fp16 const* g16, std::size_t gap) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < sizes.size(); at += sizes[i++] + gap) {
      weights.emplace_back(w + at, sizes[i]);
      weights_fp16.emplace_back(w16 + at, sizes[i]);
      gradients.emplace_back(g + at, sizes[i]);
      gradients_fp16.emplace_back(g16 + at, sizes[i]);
    }
  }
};

enum class from { fp32, scaled, bf16, fp16 };  ///< gradients

/// Steps with a case's gradients: step(source).
template <from Gradients, class F>
void with_source(halves const& h, F const& step) {
  if constexpr (Gradients == from::fp32)
    step(optim::gradient::dense{});
  else if constexpr (Gradients == from::scaled)
    step(optim::gradient::scaled{0.25f});
  else if constexpr (Gradients == from::bf16)
    step(optim::gradient::half<bf16>{h.gradients, 0.5f});
  else
    step(optim::gradient::half<fp16>{h.gradients_fp16, 0.125f});
}

inline auto in_groups() {
  return optim::param_groups{
      optim::adamw{.lr = optim::cosine{.initial = 0.01f, .steps = 30}, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f},
      optim::group{optim::name_matches{"*.1*"}, optim::adamw{.lr = 0.002f, .epsilon = 1e-3f, .weight_decay = 0}},
      optim::group{optim::name_matches{"*.7"},
                   optim::adamw{.lr = optim::linear{.from = 0.02f, .to = 0.001f, .steps = 40}, .epsilon = 1e-3f}}};
}
inline auto layers_in_groups() {
  return optim::param_groups{
      optim::chain{optim::skip_non_finite{}, lars()},
      optim::group{optim::name_matches{"*.8"},
                   optim::chain{optim::skip_non_finite{},
                                optim::lars{.lr = 0.1f, .weight_decay = 0, .trust_coefficient = 0.1f}}}};
}

/// What a last bit may tip: nothing; the nearest half of a weight; codes and halves that are rounded at random, and
/// with them all that comes after.
enum class tipped { nothing, halves, codes };

// NAME: rule(halves), the gradients' format; weights only in halves; sums over tensors; what a last bit may tip.
#define DOVETAIL_FORMAT_CASE(NAME, GRADIENTS, ELSEWHERE, SUMS, TIPPED, ...)    \
  struct NAME {                                                                \
    static constexpr char const* name = #NAME;                                 \
    static constexpr from gradients = from::GRADIENTS;                         \
    static constexpr bool elsewhere = ELSEWHERE, has_sums = SUMS;              \
    static constexpr tipped tips = tipped::TIPPED;                             \
    static auto rule([[maybe_unused]] halves const& h) { return __VA_ARGS__; } \
  };
DOVETAIL_FORMAT_CASE(groups, fp32, false, false, nothing, in_groups())
DOVETAIL_FORMAT_CASE(groups_with_norms, fp32, false, true, nothing, layers_in_groups())
DOVETAIL_FORMAT_CASE(groups_from_bf16, bf16, false, false, nothing, in_groups())
DOVETAIL_FORMAT_CASE(scaled_gradients, scaled, false, false, nothing, adamw())
DOVETAIL_FORMAT_CASE(bf16_gradients, bf16, false, false, nothing, adamw())
DOVETAIL_FORMAT_CASE(fp16_gradients, fp16, false, true, nothing, lamb())
DOVETAIL_FORMAT_CASE(mirrored_bf16, fp32, false, false, halves,
                     optim::low_precision_state{adamw(), optim::fp32_slots{}, optim::master_weights<bf16>{h.weights}})
DOVETAIL_FORMAT_CASE(mirrored_fp16, fp16, false, true, halves,
                     optim::low_precision_state{clipped(), optim::fp32_slots{},
                                                optim::master_weights<fp16>{h.weights_fp16}})
DOVETAIL_FORMAT_CASE(split, bf16, true, false, halves,
                     optim::low_precision_state{adamw(), optim::fp32_slots{}, optim::split_weights{h.weights}})
DOVETAIL_FORMAT_CASE(rounded, bf16, true, false, codes,
                     optim::low_precision_state{momentum(), optim::fp32_slots{}, optim::rounded_weights{h.weights, 11}})
DOVETAIL_FORMAT_CASE(slots_bf16, fp32, false, false, codes, optim::low_precision_state{adamw(), optim::bf16_slots{3}})
DOVETAIL_FORMAT_CASE(slots_8bit, fp32, false, false, codes,
                     optim::low_precision_state{adamw(), optim::blockwise_8bit{5}})
DOVETAIL_FORMAT_CASE(slots_8bit_lamb, scaled, false, true, codes,
                     optim::low_precision_state{lamb(), optim::blockwise_8bit{5}})
DOVETAIL_FORMAT_CASE(slots_8bit_groups, fp32, false, false, codes,
                     optim::low_precision_state{in_groups(), optim::blockwise_8bit{5}})
DOVETAIL_FORMAT_CASE(first_values, fp32, false, false, codes,
                     optim::low_precision_state{adagrad(), optim::blockwise_8bit{5}})
DOVETAIL_FORMAT_CASE(all_small, bf16, true, false, codes,
                     optim::low_precision_state{adamw(), optim::blockwise_8bit{5},
                                                optim::rounded_weights{h.weights, 11}})
DOVETAIL_FORMAT_CASE(several_rules, fp32, false, true, nothing,
                     optim::partition{adamw(), optim::group{optim::name_matches{"*.1*"}, lars()},
                                      optim::group{optim::name_matches{"*.8"}, optim::frozen{}}})
DOVETAIL_FORMAT_CASE(several_formats, bf16, false, false, codes,
                     optim::partition{optim::low_precision_state{adamw(), optim::blockwise_8bit{5}},
                                      optim::group{optim::name_matches{"*.1*"}, in_groups()}})
#undef DOVETAIL_FORMAT_CASE

#define DOVETAIL_TEST_FORMATS(CASE) \
  CASE(0, groups)                   \
  CASE(1, groups_with_norms)        \
  CASE(2, groups_from_bf16)         \
  CASE(3, scaled_gradients)         \
  CASE(4, bf16_gradients)           \
  CASE(5, fp16_gradients)           \
  CASE(6, mirrored_bf16)            \
  CASE(7, mirrored_fp16)            \
  CASE(8, split)                    \
  CASE(9, rounded)                  \
  CASE(10, slots_bf16)              \
  CASE(11, slots_8bit)              \
  CASE(12, slots_8bit_lamb)         \
  CASE(13, slots_8bit_groups)       \
  CASE(14, first_values)            \
  CASE(15, all_small)               \
  CASE(16, several_rules)           \
  CASE(17, several_formats)

template <class Space = host_memory>
basic_parameter_list<float, Space> elsewhere_list(Space where = {}) {
  basic_parameter_list<float, Space> p(where);
  for (std::size_t i = 0; i < sizes.size(); ++i)
    p.add_opaque("tensor." + std::to_string(i), shape{static_cast<std::int64_t>(sizes[i])});
  return p;
}
template <class Half>
std::vector<Half> as_halves(std::vector<float> const& x) {
  std::vector<Half> h;
  for (float const v : x) h.emplace_back(v);
  return h;
}

/// A tensor of a state: its name, type and bytes.
struct kept {
  std::string name;
  dovetail::dtype type;
  std::vector<std::byte> bytes;
  friend bool operator==(kept const&, kept const&) = default;
};
template <class State>
std::vector<kept> kept_of(State& s) {
  std::vector<kept> all;
  for (auto const& t : s.tensors("")) all.push_back({t.name, t.type, {t.bytes.begin(), t.bytes.end()}});
  return all;
}

/// What is left behind: weights in fp32 and halves, and the state.
struct format_outcome {
  std::vector<float> weight;
  std::vector<bf16> half;
  std::vector<fp16> half16;
  std::vector<kept> state;
  optim::step_result last;
};
format_outcome formats_on_host(int number, int steps);

// ---- one tensor alone, whose weights are 1 at first

struct alone {
  std::vector<float> weight;
  std::vector<kept> state;
};

/// Its last block is not whole, and gets a NaN in its second step.
struct recovering {
  static constexpr std::size_t size = 300;
  static constexpr int steps = 4;
  static auto rule() { return optim::low_precision_state{rprop(), optim::blockwise_8bit{}}; }
  static float gradient(int step, std::size_t i) {
    return step == 1 && i == 290 ? std::numeric_limits<float>::quiet_NaN() : 0.5f;
  }
};
/// Long enough for the long pieces of packed slots, in which a warp takes several blocks.
struct long_packed {
  static constexpr std::size_t size = (std::size_t{1} << 24) + 300;
  static constexpr int steps = 2;
  static auto rule() { return optim::low_precision_state{adamw(), optim::blockwise_8bit{5}}; }
  static float gradient(int step, std::size_t i) {
    auto const x = static_cast<std::uint32_t>(i + 7 * static_cast<std::size_t>(step)) * 2654435761u;
    return static_cast<float>(x >> 8) * 0x1p-24f - 0.5f;
  }
};
template <class Case>
std::vector<float> gradient_alone(int step) {
  std::vector<float> g(Case::size);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = Case::gradient(step, i);
  return g;
}
template <class Case>
alone alone_on_host();

}  // namespace test
