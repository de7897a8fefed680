// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

// How slots and weights are kept between steps (optim/stored.hpp). A step itself is fp32: blocks of elements are
// unpacked into the first-level cache, the pass runs on them as on any memory, and what it wrote is packed again.

namespace dovetail::optim {

/// Elements that are packed together, counted from a tensor's beginning.
inline constexpr std::size_t storage_block = 256;

namespace detail {
/// 32 random bits for element i of a block: the block's own word of Philox, mixed. Rounding needs no more.
constexpr std::uint32_t mixed_word(std::uint32_t word, std::uint32_t i) {
  std::uint32_t h = word + i * 0x9E3779B9u;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return h ^ (h >> 16);
}
/// Rounds up with the probability of what is cut off; not finite values stay. E[result] = x.
constexpr bf16 round_stochastically(float x, std::uint32_t random) {
  auto const u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7f800000u) == 0x7f800000u) return bf16(x);
  auto const up = u + (random & 0xffffu);
  bf16 r;
  r.bits = static_cast<std::uint16_t>(up >> 16);
  return r;
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
    for (std::size_t i = 0; i < x.size(); ++i)
      codes[i] = detail::round_stochastically(x[i], detail::mixed_word(word, static_cast<std::uint32_t>(i)));
    return 1;
  }
  static void decode(bf16 const* codes, float, std::span<float> x) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(codes[i]);
  }
};

/// Slots in 8 bits and a scale per block of 256 (after Dettmers et al., 8-bit Optimizers via Block-wise Quantization,
/// ICLR 2022; here floating point instead of their table): each element relative to the largest magnitude of its block,
/// in 5 bits of exponent and 3 of mantissa, or, if the block has negative elements, a sign, 4 and 3; rounded
/// stochastically. What is below 2^-31 (2^-15) of the largest becomes 0 or that. 1.016 bytes.
struct blockwise_8bit {
  static constexpr bool plain = false, scaled = true;
  using code = std::uint8_t;
  std::uint64_t seed = 0;  ///< of the rounding

  /// A negative scale says that the block has signs.
  static float encode(std::span<float const> x, std::uint8_t* codes, std::uint32_t word) {
    float largest = 0;
    bool negative = false, finite = true;
    for (float const v : x) {
      float const a = std::abs(v);
      largest = a > largest ? a : largest;
      negative |= v < 0;
      finite &= a <= std::numeric_limits<float>::max();
    }
    if (!finite || largest == 0) {
      std::fill_n(codes, x.size(), std::uint8_t{0});
      return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
    }
    std::uint32_t const lowest = negative ? 112u << 3 : 96u << 3;  // exponent and mantissa of code 1
    for (std::size_t i = 0; i < x.size(); ++i) {
      float const y = std::abs(x[i]) / largest;
      std::uint32_t const random = detail::mixed_word(word, static_cast<std::uint32_t>(i)) >> 12;  // 20 bits
      std::uint32_t const bits = (std::bit_cast<std::uint32_t>(y) + random) >> 20;
      std::uint32_t c;
      if (std::bit_cast<std::uint32_t>(y) >= lowest << 20)
        c = bits - lowest + 1;
      else  // below the smallest number: it, or 0
        c = y * 0x1p20f > static_cast<float>(random) * std::bit_cast<float>(lowest << 20) ? 1 : 0;
      codes[i] = static_cast<std::uint8_t>(c | (negative && x[i] < 0 ? 0x80u : 0u));
    }
    return negative ? -largest : largest;
  }
  static void decode(std::uint8_t const* codes, float scale, std::span<float> x) {
    if (scale != scale) return std::fill(x.begin(), x.end(), scale);
    auto const& values = table(scale < 0);
    float const size = std::abs(scale);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = values[codes[i]] * size;
  }

 private:
  static std::array<float, 256> const& table(bool with_signs) {
    static constexpr auto make = [](bool s) {
      std::array<float, 256> t{};
      for (std::uint32_t c = 0; c < 256; ++c) {
        std::uint32_t const magnitude = s ? c & 0x7fu : c, lowest = s ? 112u << 3 : 96u << 3;
        float const v = magnitude ? std::bit_cast<float>((magnitude - 1 + lowest) << 20) : 0.0f;
        t[c] = s && (c & 0x80u) ? -v : v;
      }
      return t;
    };
    static constexpr std::array<float, 256> positive = make(false), both = make(true);
    return with_signs ? both : positive;
  }
};

// A policy for weights says
//   in_parameters                         the fp32 weights of the parameter list are read and written
//   needs_low                             state keeps 16 more bits of each weight
//   check(parameters)                     throws argument_error if its memory does not fit them
//   load(tensor, at, low, values)         unpacks n weights of a tensor from element `at` on
//   store(tensor, at, low, values, word)  packs them

/// The weights of the parameter list, in fp32.
struct fp32_weights {
  static constexpr bool plain = true, in_parameters = true, needs_low = false;
  static void check(parameter_list const&) {}
};

namespace detail {
template <class Half>
void check_halves(std::vector<std::span<Half>> const& values, parameter_list const& p, char const* who) {
  require(values.size() == p.size(), "optim::", who, " has ", values.size(), " spans for ", p.size(),
          " parameters: pass one per parameter, in the list's order");
  for (std::size_t i = 0; i < p.size(); ++i)
    require(values[i].size() == p[i].size(), "optim::", who, ": parameter '", p[i].name, "' has ", p[i].size(),
            " elements, its half ", values[i].size());
}
}  // namespace detail

/// fp32 masters in the parameter list, and the model's fp16 or bf16 weights written in the same pass, rounded to
/// nearest (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1).
template <class Half>
struct mirrored_weights {
  static constexpr bool plain = false, in_parameters = true, needs_low = false;
  std::vector<std::span<Half>> values;

  void check(parameter_list const& p) const { detail::check_halves(values, p, "mirrored_weights"); }
  void store(std::size_t tensor, std::size_t at, std::uint16_t*, std::span<float const> w, std::uint32_t) const {
    for (std::size_t i = 0; i < w.size(); ++i) values[tensor][at + i] = Half(w[i]);
  }
};

/// The model's bf16 weights are the upper halves of fp32 masters, whose lower halves are in the optimizer's state:
/// exact fp32 training in 4 bytes per weight (split SGD: Kalamkar et al., A Study of BFLOAT16 for Deep Learning
/// Training, 2019).
struct split_weights {
  static constexpr bool plain = false, in_parameters = false, needs_low = true;
  std::vector<std::span<bf16>> values;

  void check(parameter_list const& p) const { detail::check_halves(values, p, "split_weights"); }
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
};

/// The model's bf16 weights and nothing more, rounded stochastically (Zamirai et al., 2020). 2 bytes per weight.
struct rounded_weights {
  static constexpr bool plain = false, in_parameters = false, needs_low = false;
  std::vector<std::span<bf16>> values;
  std::uint64_t seed = 0;

  void check(parameter_list const& p) const { detail::check_halves(values, p, "rounded_weights"); }
  void load(std::size_t tensor, std::size_t at, std::uint16_t const*, std::span<float> w) const {
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(values[tensor][at + i]);
  }
  void store(std::size_t tensor, std::size_t at, std::uint16_t*, std::span<float const> w, std::uint32_t word) const {
    for (std::size_t i = 0; i < w.size(); ++i)
      values[tensor][at + i] =
          detail::round_stochastically(w[i], detail::mixed_word(word, static_cast<std::uint32_t>(i)));
  }
};

}  // namespace dovetail::optim
