// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// 1-bit SGD: one bit an element, and two numbers a block that the bits stand for, the mean of its elements below 0 and
/// the mean of the others.
///
/// A payload is the pairs of means (fp32: of the others, of the negative ones), then ⌈n/8⌉ bytes of bits, the first the
/// lowest, 1 = below 0. No other two numbers would lose less with these bits; where the mean of a block is not 0 that
/// is less than compress::sign loses with its one scale. The paper's blocks are columns of weight matrices; `block` is
/// in elements, a multiple of 8; 0 makes the bucket one block. A block with an element that is not finite is NaN.
///
/// Errors: argument_error for a block that is no multiple of 8; input_error for payloads of another size, or with bits
/// behind the last element.
///
/// Source: Seide et al., "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training
/// of Speech DNNs", Interspeech 2014, section 3.
struct one_bit {
  std::size_t block = 512;
  static constexpr auto describe() { return policy{"one_bit", field{"block", &one_bit::block, bounds{.low = 0}}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< |x|² loses at least (Σ|x|)² / n of the worst block

  static constexpr char const* name() { return "1-bit"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    return 8 * detail::block_count{n, block}.blocks() + (n + 7) / 8;
  }
  no_state init(bucket const&) const {
    require_block();
    return {};
  }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    require_block();
    std::size_t const n = b.size(), count = detail::block_count{n, block}.blocks(), length = block ? block : n;
    require_room(name(), n, wire_size(n), out);
    auto const& kernel = quantize::best();
    for (std::size_t i = 0; i < count; ++i) {
      auto const x = b.values.subspan(i * length, std::min(length, n - i * length));
      quantize::two_sums s = kernel.to_halves(x.data(), x.size(), out.data() + 8 * count + i * length / 8);
      if (!is_finite(s.negative) || !is_finite(s.others)) {  // or fp32 partial sums that overflowed
        s.negative = s.others = 0;
        for (float const& v : x) (v < 0 ? s.negative : s.others) += static_cast<double>(v);
      }
      // Sums of finite floats are finite.
      bool const finite = is_finite(s.negative) && is_finite(s.others);
      float const means[2] = {finite ? mean(s.others, x.size() - s.below) : not_a_number<float>(),
                              finite ? mean(s.negative, s.below) : not_a_number<float>()};
      std::memcpy(out.data() + 8 * i, means, 8);
    }
    return wire_size(n);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    require_block();
    std::size_t const n = out.size(), count = detail::block_count{n, block}.blocks(), length = block ? block : n;
    require_payload(name(), n, wire_size(n), payload);
    require<input_error>(n % 8 == 0 || std::to_integer<unsigned>(payload.back()) >> (n % 8) == 0, name(),
                         ": a payload of ", n, " elements has bits set behind the last one: it is damaged");
    auto const& kernel = quantize::best();
    for (std::size_t i = 0; i < count; ++i) {
      auto const x = out.subspan(i * length, std::min(length, n - i * length));
      float means[2];
      std::memcpy(means, payload.data() + 8 * i, 8);
      kernel.add_halves(payload.data() + 8 * count + i * length / 8, x.size(), weight * means[0], weight * means[1],
                        x.data());
    }
  }

 private:
  void require_block() const {
    require(block % 8 == 0, "1-bit: a block of ", block, " elements: it must be a multiple of 8, or 0 for one block");
  }
  static float mean(double sum, std::size_t count) {
    return count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
  }
};

}  // namespace dovetail::compress
