// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// The 8-bit floats of the Open Compute Project.
enum class float8 : unsigned char {
  e4m3,  ///< 3 bits of mantissa, 2^−9 to 448
  e5m2   ///< 2 bits of mantissa, 2^−16 to 57344
};

/// Gradients as 8-bit floats under one power of two a block, rounded to nearest even: `fp8_e4m3` and `fp8_e5m2`.
///
/// A payload is the largest magnitude of each block (fp32), of which both sides make the power of two that brings it to
/// the top of the format's range, then n bytes. Relative squared error of normal numbers: 7e-4 and 2.6e-3, whatever the
/// block; what is 2^−18 (2^−32) of the block's largest becomes 0. `block` is in elements; 0 makes the bucket one block.
/// A block with an element that is not finite is NaN throughout; the formats' own codes for that are not sent.
///
/// Errors: input_error for payloads of another size or with negative magnitudes.
///
/// Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, sections 3 and 4.
template <float8 Format>
struct fp8 {
  std::size_t block = 0;
  static constexpr auto describe() { return policy{"fp8", field{"block", &fp8::block, bounds{.low = 0}}}; }

  static constexpr bool summable = false;  // a sum in 8 bits would be rounded at every rank
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = true;

  static constexpr char const* name() { return e4m3 ? "fp8_e4m3" : "fp8_e5m2"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * detail::block_count{n, block}.blocks() + n; }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    return encode(b, out, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, quantize::kernel_set const& kernel) const {
    require_room(name(), b.size(), wire_size(b.size()), out);
    return detail::encode_blocks(b.values, {b.size(), block}, norm::max, {8}, 0, out, kernel,
                                 [&](detail::block_scale const& s, std::span<float const> x, std::uint32_t, auto* to) {
                                   float const up = 1 / power_of(s.stored * s.power);
                                   if constexpr (e4m3)
                                     kernel.to_e4m3(x.data(), x.size(), s.power, up, to);
                                   else
                                     kernel.to_e5m2(x.data(), x.size(), s.power, up, to);
                                 });
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    detail::decode_blocks(name(), payload, {out.size(), block}, {8}, out, kernel,
                          [&](float scale, std::uint8_t const* from, std::size_t n, float* to) {
                            if constexpr (e4m3)
                              kernel.add_e4m3(from, n, weight * power_of(scale), to);
                            else
                              kernel.add_e5m2(from, n, weight * power_of(scale), to);
                          });
  }

 private:
  static constexpr bool e4m3 = Format == float8::e4m3;
  /// The power of two that takes the format's upper half to where `largest` is.
  static constexpr float power_of(float largest) {
    if (!(largest > 0) || !is_finite(largest)) return largest;
    constexpr float most = e4m3 ? 448 : 57344;
    // largest / most, rounded up to a power of two: the quotient is exact up to a last bit that errs to the safe side.
    double const ratio = static_cast<double>(largest) / static_cast<double>(most);
    auto bits = std::bit_cast<std::uint64_t>(ratio);
    if (bits & 0xfffffffffffffu) bits = (bits & ~std::uint64_t{0xfffffffffffff}) + (std::uint64_t{1} << 52);
    return static_cast<float>(std::bit_cast<double>(bits));
  }
};
using fp8_e4m3 = fp8<float8::e4m3>;
using fp8_e5m2 = fp8<float8::e5m2>;

}  // namespace dovetail::compress
