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

/// Natural dithering: the levels 0, 2^(1−s), …, 1/2, 1 in units of a block's norm, rounded up or down at random so that
/// the expectation is the gradient. Where QSGD's levels are equally far apart, these are equally far apart in the
/// logarithm, as gradients are: s levels reach as far down as 2^(s−1) of QSGD's.
///
/// A payload is the norm of each block (fp32), then the levels plus s in ⌈log2(2s + 1)⌉ bits each. E|decoded − x|² <=
/// (1/8 + b^(1/r) 2^(1−s) min(1, b^(1/r) 2^(1−s))) |x|² for blocks of b and r = min(p, 2) of the p-norm. `block` 0
/// makes the bucket one block. A block with an element that is not finite, or whose norm is not, is NaN throughout.
///
/// Random dithering with equally spaced levels is compress::qsgd, of any of the three norms.
///
/// Errors: argument_error for levels outside of 1 … 100; input_error for payloads of another size, with negative norms,
/// or with bits behind the last element.
///
/// Source: Horváth et al., "Natural Compression for Distributed Deep Learning", MSML 2022, section 3.2.
struct natural_dithering {
  int levels = 7;  ///< s, on each side of 0
  std::size_t block = 512;
  compress::norm norm = compress::norm::max;  ///< of a block, of which levels are parts
  static constexpr auto describe() {
    return policy{"natural_dithering", field{"levels", &natural_dithering::levels, bounds{.low = 1, .high = 100}},
                  field{"block", &natural_dithering::block, bounds{.low = 0}},
                  field{"norm", &natural_dithering::norm, "max l2 l1"}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;

  static constexpr char const* name() { return "natural dithering"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    return 4 * detail::block_count{n, block}.blocks() + codes().bytes(n);
  }
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
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, context const& where,
                     quantize::kernel_set const& kernel) const {
    check_policy(*this);
    require_room(name(), b.size(), wire_size(b.size()), out);
    element_random const random(where.own_random());
    return detail::encode_blocks(
        b.values, {b.size(), block}, norm, codes(), static_cast<std::uint8_t>(levels), out, kernel,
        [&](detail::block_scale const& s, std::span<float const> x, std::uint32_t first, auto* to) {
          kernel.quantize_powers(x.data(), x.size(), s.power, s.inverse, levels, random, first, to);
        });
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    check_policy(*this);
    detail::decode_blocks(name(), payload, {out.size(), block}, codes(), out, kernel,
                          [&](float scale, std::uint8_t const* from, std::size_t n, float* to) {
                            kernel.add_level_powers(from, n, weight * scale, levels, to);
                          });
  }

 private:
  constexpr detail::code_packing codes() const {
    return {static_cast<int>(std::bit_width(2 * static_cast<unsigned>(levels)))};
  }
};

}  // namespace dovetail::compress
