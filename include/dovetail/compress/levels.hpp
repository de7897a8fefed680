// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {
namespace detail {

/// 2s + 1 equally spaced numbers −s … s in units of norm / s: what QSGD, TernGrad and blockwise integers send.
struct equal_levels {
  int levels;  ///< s, at most 127
  std::size_t block;
  norm of = norm::max;
  packing pack = packing::bits;

  constexpr code_packing codes() const {
    return {pack == packing::base3 ? 0 : static_cast<int>(std::bit_width(2 * static_cast<unsigned>(levels)))};
  }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * block_count{n, block}.blocks() + codes().bytes(n); }
  /// `random` null: to nearest, halves away from 0.
  std::size_t encode(char const* who, bucket const& b, std::span<std::byte> out, element_random const* random,
                     quantize::kernel_set const& kernel) const {
    require_room(who, b.size(), wire_size(b.size()), out);
    auto const s = static_cast<float>(levels);
    return encode_blocks(b.values, {b.size(), block}, of, codes(), static_cast<std::uint8_t>(levels), out, kernel,
                         [&](block_scale const& scale, std::span<float const> x, std::uint32_t first, auto* to) {
                           float const inverse = s * scale.inverse;
                           if (random)
                             kernel.quantize_random(x.data(), x.size(), scale.power, inverse, levels, *random, first,
                                                    to);
                           else
                             kernel.quantize_nearest(x.data(), x.size(), scale.power, inverse, levels, to);
                         });
  }
  /// The payload of n elements, checked.
  struct reader {
    block_payload payload;
    int levels;
    quantize::kernel_set kernel;
    std::size_t size() const { return payload.size(); }
    std::size_t bytes() const { return payload.bytes(); }
    void add(std::size_t first, std::span<float> out, float weight = 1) const {
      auto const s = static_cast<float>(levels);
      payload.each_block(first, out, kernel, [&](float scale, std::uint8_t const* from, std::size_t n, float* to) {
        kernel.add_levels(from, n, weight * (scale / s), levels, to);
      });
    }
  };
  reader read(char const* who, std::span<std::byte const> payload, std::size_t n,
              quantize::kernel_set const& kernel) const {
    return {block_payload(who, payload, {n, block}, codes()), levels, kernel};
  }
};

}  // namespace detail

/// Whole numbers of −L … L in units of max|x| / L, one unit a block, to nearest: `int8`, where L is 127, and `int4`,
/// where it is 7.
///
/// A payload is the largest magnitude of each block (fp32), then the numbers plus L, in 8 or 4 bits each, without gaps:
/// of a block of b elements b + 4 bytes, or b/2 + 4. No element is further from what is decoded than half a unit: a
/// contraction, and for int8 so near that it goes without error feedback (relative error of normal numbers in blocks of
/// 512: 0.7 %; of int4 13 %, which wants it). `block` is in elements; 0 makes the bucket one block. A block with an
/// element that is not finite is NaN throughout when it is decoded.
///
/// Errors: input_error for payloads of another size, with negative magnitudes, or with bits behind the last element.
///
/// Sources: Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", ICLR 2016; blockwise: Dettmers et al.,
/// "8-bit Optimizers via Block-wise Quantization", ICLR 2022, section 2.1.
template <int Levels>
struct integers {
  static_assert(Levels >= 1 && Levels <= 127, "compress::integers has 1 to 127 numbers on each side of 0");
  std::size_t block = 512;
  static constexpr auto describe() { return policy{"integers", field{"block", &integers::block, bounds{.low = 0}}}; }

  static constexpr bool summable = false;  // ranks have different units
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = Levels < 64;
  static constexpr bool contraction = true;  ///< d >= 1 / block: the largest element is exact, no other moves beyond 2x

  static constexpr char const* name() { return Levels == 127 ? "int8" : Levels == 7 ? "int4" : "integers"; }
  constexpr std::size_t wire_size(std::size_t n) const { return format().wire_size(n); }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    return encode(b, out, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  auto reader(std::span<std::byte const> payload, std::size_t n) const {
    return format().read(name(), payload, n, quantize::best());
  }
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, quantize::kernel_set const& kernel) const {
    return format().encode(name(), b, out, nullptr, kernel);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    format().read(name(), payload, out.size(), kernel).add(0, out, weight);
  }

  /// What is sent, as the kernels of a device want to know it.
  constexpr detail::equal_levels format() const { return {Levels, block}; }
};
using int8 = integers<127>;
using int4 = integers<7>;

/// QSGD: numbers of 2s + 1 equally spaced levels in units of norm / s, rounded up or down at random so that the
/// expectation is the gradient.
///
/// A payload is the norm of each block (fp32), then the levels plus s in ⌈log2(2s + 1)⌉ bits each, without gaps. With
/// the 2-norm E|decoded − x|² <= min(b / s², b^½ / s) |x|², b the block; with the largest magnitude, as CGX and most
/// others have it, no element is further off than a unit, which is smaller: b / (4 s²) max² at most. `block` 0 makes
/// the bucket one block. A block with an element that is not finite, or whose norm is not, is NaN throughout.
///
/// Random numbers are those of the context: of seed, rank, step and place.
///
/// Errors: argument_error for levels outside of 1 … 127; input_error for payloads of another size, with negative
/// norms, or with bits behind the last element.
///
/// Source: Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017,
/// section 3.1 (levels in a fixed number of bits, where the paper has Elias' code).
struct qsgd {
  int levels = 7;  ///< s, on each side of 0
  std::size_t block = 512;
  compress::norm norm = compress::norm::l2;  ///< of a block, of which levels are parts
  static constexpr auto describe() {
    return policy{"qsgd", field{"levels", &qsgd::levels, bounds{.low = 1, .high = 127}},
                  field{"block", &qsgd::block, bounds{.low = 0}}, field{"norm", &qsgd::norm, "max l2 l1"}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;

  static constexpr char const* name() { return "QSGD"; }
  constexpr std::size_t wire_size(std::size_t n) const { return format().wire_size(n); }
  no_state init(bucket const&) const {
    check_policy(*this);
    return {};
  }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    return encode(b, out, where, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  auto reader(std::span<std::byte const> payload, std::size_t n) const {
    check_policy(*this);
    return format().read(name(), payload, n, quantize::best());
  }
  std::size_t encode(bucket const& b, std::span<std::byte> out, context const& where,
                     quantize::kernel_set const& kernel) const {
    check_policy(*this);
    element_random const random(where.own_random());
    return format().encode(name(), b, out, &random, kernel);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    check_policy(*this);
    format().read(name(), payload, out.size(), kernel).add(0, out, weight);
  }

  constexpr detail::equal_levels format() const { return {levels, block, norm}; }
};

/// TernGrad: −1, 0 or 1 times the block's largest magnitude, drawn so that the expectation is the gradient.
///
/// A payload is the largest magnitude of each block (fp32), then the numbers plus 1 in 2 bits each, or five a byte
/// (packing::base3, 1.6 bits). E|decoded − x|² = max|x| |x|1 − |x|². The paper has one block a layer, which `block` 0
/// makes of a bucket; smaller blocks vary less. Its clipping of gradients, which takes the expectation away, is left
/// out. A block with an element that is not finite is NaN throughout.
///
/// Errors: input_error for payloads of another size, with negative magnitudes, with bytes that are no five digits, or
/// with anything behind the last element.
///
/// Source: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning", NeurIPS
/// 2017, equations 3 to 5.
struct terngrad {
  std::size_t block = 512;
  compress::packing packing = compress::packing::bits;  ///< in bits of their own, or five numbers a byte
  static constexpr auto describe() {
    return policy{"terngrad", field{"block", &terngrad::block, bounds{.low = 0}},
                  field{"packing", &terngrad::packing, "bits base3"}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;

  static constexpr char const* name() { return "TernGrad"; }
  constexpr std::size_t wire_size(std::size_t n) const { return format().wire_size(n); }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    return encode(b, out, where, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  auto reader(std::span<std::byte const> payload, std::size_t n) const {
    return format().read(name(), payload, n, quantize::best());
  }
  std::size_t encode(bucket const& b, std::span<std::byte> out, context const& where,
                     quantize::kernel_set const& kernel) const {
    element_random const random(where.own_random());
    return format().encode(name(), b, out, &random, kernel);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    format().read(name(), payload, out.size(), kernel).add(0, out, weight);
  }

  constexpr detail::equal_levels format() const { return {1, block, norm::max, packing}; }
};

}  // namespace dovetail::compress
