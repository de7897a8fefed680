// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <dovetail/compress/chunk_sums.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// One bit an element and one fp32 scale a block: decode(encode(x)) = mean|x| · sign(x), about 32 times smaller.
///
/// A payload is the scales of the blocks, then ceil(n/8) bytes of signs, least significant bit first, 1 = negative.
/// `block` is in elements, a multiple of 16; 0 makes the bucket one block. One bit cannot say 0: the signs of zeros
/// alternate with their position, so that they cancel in sums, and error feedback takes them back. A block with a
/// non-finite element has a non-finite scale: every rank sees it, in every element of the block. Magnitudes are added
/// in one order on every processor and on a device (chunk_sums.hpp).
///
/// Errors: argument_error for a block that is no multiple of 16; input_error for payloads of another size, with
/// negative scales, or with bits behind the last element.
///
/// Source: Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019 (scaled sign).
struct sign {
  std::size_t block = 0;
  static constexpr auto describe() { return policy{"sign", field{"block", &sign::block, bounds{.low = 0}}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d = |x|1² / (n |x|2²) of the worst block, at least 1 / its length

  static constexpr char const* name() { return "sign"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * blocks(n) + (n + 7) / 8; }
  no_state init(bucket const&) const {
    require_block();
    return {};
  }

  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    require_block();
    std::size_t const n = b.size(), count = blocks(n), bytes = wire_size(n);
    require_room(name(), n, bytes, out);
    auto const& kernel = kernels::best();
    for (std::size_t i = 0; i < count; ++i) {
      auto const x = b.values.subspan(i * length(n), std::min(length(n), n - i * length(n)));
      double sum = kernel.to_signs(x.data(), x.size(), out.data() + 4 * count + i * length(n) / 8);
      if (!is_finite(sum)) [[unlikely]]
        sum = detail::magnitudes_again(x.data(), x.size());
      float const scale = detail::mean_of(sum, x.size());
      std::memcpy(out.data() + 4 * i, &scale, 4);
    }
    return bytes;
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    reader(payload, out.size()).add(0, out, weight);
  }
  /// A payload of n elements, checked.
  class payload_reader {
   public:
    std::size_t size() const { return n_; }
    std::size_t bytes() const { return payload_.size(); }
    void add(std::size_t first, std::span<float> out, float weight = 1) const {
      std::size_t const end = first + out.size();
      auto const& kernel = kernels::best();
      for (std::size_t i = first; i < end;) {
        std::size_t const in_block = i / length_, stop = std::min(end, (in_block + 1) * length_);
        kernel.add_signs(payload_.data() + signs_ + i / 8, stop - i, weight * read_scale(payload_, in_block),
                         out.data() + (i - first));
        i = stop;
      }
    }

   private:
    friend struct sign;
    payload_reader(std::span<std::byte const> payload, std::size_t n, std::size_t length, std::size_t signs)
        : payload_(payload), n_(n), length_(length), signs_(signs) {}
    std::span<std::byte const> payload_;
    std::size_t n_, length_, signs_;
  };
  payload_reader reader(std::span<std::byte const> payload, std::size_t n) const {
    require_block();
    std::size_t const count = blocks(n);
    require_payload(name(), n, wire_size(n), payload);
    // Everything is checked before anything is added.
    for (std::size_t i = 0; i < count; ++i) {
      float const scale = read_scale(payload, i);
      require<input_error>(std::bit_cast<std::uint32_t>(scale) >> 31 == 0, name(), ": block ", i, " has the scale ",
                           scale, ", a mean of magnitudes is not negative: the payload is damaged");
    }
    require<input_error>(n % 8 == 0 || std::to_integer<unsigned>(payload.back()) >> (n % 8) == 0, name(),
                         ": a payload of ", n, " elements has bits set behind the last one: it is damaged");
    return {payload, n, length(n), 4 * count};
  }

 private:
  void require_block() const {
    require(block % 16 == 0, "sign: a block of ", block, " elements: it must be a multiple of 16, or 0 for one block");
  }
  constexpr std::size_t length(std::size_t n) const { return block ? block : n; }
  constexpr std::size_t blocks(std::size_t n) const { return n == 0 ? 0 : block ? (n - 1) / block + 1 : 1; }
  static float read_scale(std::span<std::byte const> payload, std::size_t i) {
    float scale;
    std::memcpy(&scale, payload.data() + 4 * i, 4);
    return scale;
  }
};

}  // namespace dovetail::compress
