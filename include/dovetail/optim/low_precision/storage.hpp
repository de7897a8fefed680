// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/low_precision/storage_kernels.hpp>
#include <dovetail/optim/sharding.hpp>

// How slots and weights are kept between steps (optim/low_precision/low_precision_state.hpp). A step itself is fp32:
// blocks of elements are unpacked into the first-level cache, the pass runs on them as on any memory, and what it wrote
// is packed again.

namespace dovetail::optim {

/// Elements that are packed together, counted from a tensor's beginning.
inline constexpr std::size_t storage_block = 256;

namespace detail {
/// The first random word of a block, which has one for each of its arrays: in fours, as Philox makes them.
DOVETAIL_HD constexpr std::uint64_t block_word(std::uint64_t block, std::size_t arrays) {
  return block * ((arrays + 3) / 4 * 4);
}
/// Calls f(x, codes) with whole blocks: a tensor's last one is padded with zeros.
template <class Code, class F>
float pack_block(std::span<float const> x, Code* codes, F const& f) {
  if (x.size() == storage_block) return f(x.data(), codes);
  float values[storage_block] = {};
  Code room[storage_block];
  std::copy(x.begin(), x.end(), values);
  float const scale = f(values, room);
  std::copy_n(room, x.size(), codes);
  return scale;
}
template <class Code, class F>
void unpack_block(Code const* codes, std::span<float> x, F const& f) {
  if (x.size() == storage_block) return f(codes, x.data());
  float values[storage_block];
  Code room[storage_block] = {};
  std::copy_n(codes, x.size(), room);
  f(room, values);
  std::copy_n(values, x.size(), x.begin());
}
}  // namespace detail

// A policy for slots says
//   code                                   what an element becomes
//   scaled                                 true if every block also has a float
//   encode(values, codes, word) -> float   packs a block; `word` is random, the result is its scale
//   decode(codes, scale, values)           unpacks one

/// Slots in fp32: as they are.
struct fp32_slots {
  static constexpr bool plain = true;
};

/// Slots in bfloat16, rounded stochastically: a running average moves in expectation even where its change is smaller
/// than half a step of the format (Zamirai et al., Revisiting BFloat16 Training, 2020). 2 bytes.
struct bf16_slots {
  static constexpr bool plain = false, scaled = false;
  using code = bf16;
  std::uint64_t seed = 0;  ///< of the rounding

  static float encode(std::span<float const> x, bf16* codes, std::uint32_t word) {
    return detail::pack_block(x, codes, [word](float const* from, bf16* to) {
      kernels::best().pack_bf16(from, word, reinterpret_cast<std::uint16_t*>(to));
      return 1.0f;
    });
  }
  static void decode(bf16 const* codes, float, std::span<float> x) {
    detail::unpack_block(codes, x, [](bf16 const* from, float* to) {
      kernels::best().unpack_bf16(reinterpret_cast<std::uint16_t const*>(from), to);
    });
  }
};

/// Slots in 8 bits and a scale per block of 256 (after Dettmers et al., 8-bit Optimizers via Block-wise Quantization,
/// ICLR 2022; here floating point instead of their table): each element relative to the largest magnitude of its block,
/// in 5 bits of exponent and 3 of mantissa, or, if the block has negative elements, a sign, 4 and 3; rounded
/// stochastically. A block whose elements are farther apart than that reaches, 2^-31 (2^-15), gives a bit of mantissa
/// for one of exponent, and reaches 2^-63 (2^-31). In a block without negative elements, what is smaller still becomes
/// that, never 0: a second moment does not vanish under a first moment that is left. With signs, it becomes 0. 1.016
/// bytes.
struct blockwise_8bit {
  static constexpr bool plain = false, scaled = true;
  using code = std::uint8_t;
  std::uint64_t seed = 0;  ///< of the rounding

  /// A negative scale says that the block has signs; NaN, that something in it was not finite.
  static float encode(std::span<float const> x, std::uint8_t* codes, std::uint32_t word) {
    return detail::pack_block(
        x, codes, [word](float const* from, std::uint8_t* to) { return kernels::best().pack_8bit(from, word, to); });
  }
  static void decode(std::uint8_t const* codes, float scale, std::span<float> x) {
    detail::unpack_block(
        codes, x, [scale](std::uint8_t const* from, float* to) { kernels::best().unpack_8bit(from, scale, to); });
  }
};

// A policy for weights says
//   in_parameters                         the fp32 weights of the parameter list are read and written
//   needs_low                             state keeps 16 more bits of each weight
//   check(parameters)                     throws argument_error if its memory does not fit them, or the tensors that
//                                         they are parts of
//   load(tensor, at, low, values)         unpacks n weights of a tensor from element `at` on
//   store(tensor, at, low, values, word)  packs them
//   share(parameters, exchange)           ranks stepped a part each: brings the others' up to date (optim/sharding.hpp)

/// The weights of the parameter list, in fp32.
struct fp32_weights {
  static constexpr bool plain = true, in_parameters = true, needs_low = false;
  template <class Space>
  static void check(basic_parameter_list<float, Space> const&) {}
  template <class Exchange>
  static void share(parameter_list const&, Exchange const&) {}
};

namespace detail {
template <class Half, class Space>
void check_halves(std::vector<std::span<Half>> const& values, basic_parameter_list<float, Space> const& p,
                  char const* who) {
  require(values.size() == p.size(), "optim::", who, " has ", values.size(), " spans for ", p.size(),
          " parameters: pass one per parameter, in the list's order");
  for (std::size_t i = 0; i < p.size(); ++i)
    require(values[i].size() == static_cast<std::size_t>(p[i].whole.size()), "optim::", who, ": parameter '", p[i].name,
            "' has ", p[i].whole.size(), " elements, its half ", values[i].size());
}
template <class Half, class Exchange>
void share_halves(std::vector<std::span<Half>> const& values, Exchange const& exchange) {
  std::vector<divisible_array> all;
  for (std::size_t i = 0; i < values.size(); ++i) all.push_back(divided(i, values[i]));
  exchange(std::move(all));
}
}  // namespace detail

/// fp32 masters in the parameter list, and the model's fp16 or bf16 weights written in the same pass, rounded to
/// nearest (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1).
template <class Half>
struct master_weights {
  static constexpr bool plain = false, in_parameters = true, needs_low = false;
  std::vector<std::span<Half>> values;

  template <class Space>
  void check(basic_parameter_list<float, Space> const& p) const {
    detail::check_halves(values, p, "master_weights");
  }
  void store(std::size_t tensor, std::size_t at, std::uint16_t*, std::span<float const> w, std::uint32_t) const {
    for (std::size_t i = 0; i < w.size(); ++i) values[tensor][at + i] = Half(w[i]);
  }
  template <class Exchange>
  void share(parameter_list const& p, Exchange const&) const {  // nothing is sent: all ranks have all masters
    for (std::size_t i = 0; i < p.size(); ++i) store(i, 0, nullptr, p[i].weight, 0);
  }
};

/// The model's bf16 weights are the upper halves of fp32 masters, whose lower halves are in the optimizer's state:
/// exact fp32 training in 4 bytes per weight (split SGD: Kalamkar et al., A Study of BFLOAT16 for Deep Learning
/// Training, 2019).
struct split_weights {
  static constexpr bool plain = false, in_parameters = false, needs_low = true;
  std::vector<std::span<bf16>> values;

  template <class Space>
  void check(basic_parameter_list<float, Space> const& p) const {
    detail::check_halves(values, p, "split_weights");
  }
  void load(std::size_t tensor, std::size_t at, std::uint16_t const* low, std::span<float> w) const {
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = std::bit_cast<float>((static_cast<std::uint32_t>(values[tensor][at + i].bits) << 16) | low[i]);
  }
  void store(std::size_t tensor, std::size_t at, std::uint16_t* low, std::span<float const> w, std::uint32_t) const {
    for (std::size_t i = 0; i < w.size(); ++i) {
      auto const u = std::bit_cast<std::uint32_t>(w[i]);
      values[tensor][at + i].bits = static_cast<std::uint16_t>(u >> 16);
      low[i] = static_cast<std::uint16_t>(u);
    }
  }
  template <class Exchange>
  void share(parameter_list const&, Exchange const& exchange) const {
    detail::share_halves(values, exchange);
  }
};

/// The model's bf16 weights and nothing more, rounded stochastically (Zamirai et al., 2020). 2 bytes per weight.
struct rounded_weights {
  static constexpr bool plain = false, in_parameters = false, needs_low = false;
  std::vector<std::span<bf16>> values;
  std::uint64_t seed = 0;

  template <class Space>
  void check(basic_parameter_list<float, Space> const& p) const {
    detail::check_halves(values, p, "rounded_weights");
  }
  void load(std::size_t tensor, std::size_t at, std::uint16_t const*, std::span<float> w) const {
    bf16_slots::decode(values[tensor].data() + at, 1, w);
  }
  void store(std::size_t tensor, std::size_t at, std::uint16_t*, std::span<float const> w, std::uint32_t word) const {
    bf16_slots::encode(w, values[tensor].data() + at, word);
  }
  template <class Exchange>
  void share(parameter_list const&, Exchange const& exchange) const {
    detail::share_halves(values, exchange);
  }
};

}  // namespace dovetail::optim
