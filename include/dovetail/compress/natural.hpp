// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// Natural compression: each number becomes one of the two powers of two around it, drawn so that the expectation is
/// the number. Sign and exponent, 9 bits an element, no scale and no block.
///
/// A payload is the n exponents, a byte each as fp32 has them, then ⌈n/8⌉ bytes of signs, the first in the lowest bit,
/// 1 = negative. E|decoded − x|² <= |x|² / 8. Numbers below 2^−126 become 0 or 2^−126; above 2^127 they become 2^127,
/// which is the one place where the expectation is not kept. NaN and infinity are decoded as infinity.
///
/// Errors: input_error for payloads of another size, or with signs behind the last element.
///
/// Source: Horváth et al., "Natural Compression for Distributed Deep Learning", MSML 2022, section 2.
struct natural {
  static constexpr auto describe() { return policy<natural>{"natural"}; }
  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;

  static constexpr char const* name() { return "natural"; }
  constexpr std::size_t wire_size(std::size_t n) const { return n + (n + 7) / 8; }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    return encode(b, out, where, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, context const& where,
                     quantize::kernel_set const& kernel) const {
    std::size_t const n = b.size();
    require_room(name(), n, wire_size(n), out);
    kernel.to_powers(b.values.data(), n, element_random(where.own_random()), 0, out.data(), out.data() + n);
    return wire_size(n);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    std::size_t const n = out.size();
    require_payload(name(), n, wire_size(n), payload);
    require<input_error>(n % 8 == 0 || std::to_integer<unsigned>(payload.back()) >> (n % 8) == 0, name(),
                         ": a payload of ", n, " elements has signs behind the last one: it is damaged");
    kernel.add_powers(payload.data(), payload.data() + n, n, weight, out.data());
  }
};

}  // namespace dovetail::compress
