// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// 3LC: −1, 0 or 1 times M = sparsity · max|x|, to nearest, five a byte, and runs of zeros shortened.
///
/// `sparsity`, at least 1 and below 2, makes more numbers 0: those below M / 2. No element is further off than M / 2,
/// and none than its own magnitude: a contraction, which wants error feedback. A payload is max|x| of each block
/// (fp32), then the bytes of quartic encoding, five numbers plus 1 as digits of base 3; 2 to 14 bytes of five zeros
/// (121) in a row become one, 241 + their count. So 1.6 bits an element at most, 0.11 where all is 0. `block` 0 makes
/// the bucket one block, as the paper does of a tensor. A block with an element that is not finite is NaN throughout.
///
/// Errors: argument_error for another sparsity; input_error for payloads that are too short or too long, with negative
/// magnitudes, or with anything behind the last element.
///
/// Source: Lim, Andersen, Kaminsky, "3LC: Lightweight and Effective Traffic Compression for Distributed Machine
/// Learning", MLSys 2019, section 3.
struct three_lc {
  float sparsity = 1.0f;  ///< the larger, the more zeros
  std::size_t block = 0;
  static constexpr auto describe() {
    return policy{"three_lc", field{"sparsity", &three_lc::sparsity, bounds{.low = 1, .high = 2, .below = true}},
                  field{"block", &three_lc::block, bounds{.low = 0}}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d >= s (2 - s) / n: the largest becomes s times itself

  static constexpr char const* name() { return "3LC"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    return 4 * detail::block_count{n, block}.blocks() + codes.bytes(n);
  }
  no_state init(bucket const&) const {
    check_policy(*this);
    return {};
  }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    return encode(b, out, quantize::best());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    decode_add(payload, out, weight, quantize::best());
  }
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, quantize::kernel_set const& kernel) const {
    check_policy(*this);
    std::size_t const n = b.size(), scales = 4 * detail::block_count{n, block}.blocks();
    require_room(name(), n, wire_size(n), out);
    detail::encode_blocks(b.values, {n, block}, norm::max, codes, 1, out, kernel,
                          [&](detail::block_scale const& s, std::span<float const> x, std::uint32_t, auto* to) {
                            kernel.quantize_nearest(x.data(), x.size(), s.power, s.inverse / sparsity, 1, to);
                          });
    return scales + shorten(out.subspan(scales, codes.bytes(n)));
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  quantize::kernel_set const& kernel) const {
    check_policy(*this);
    std::size_t const n = out.size(), scales = 4 * detail::block_count{n, block}.blocks(), bytes = codes.bytes(n);
    require<input_error>(payload.size() >= scales && payload.size() <= scales + bytes, name(), ": a payload of ",
                         payload.size(), " bytes for ", n, " elements, which take ", scales, " and 1 to ", bytes,
                         " bytes more: it is truncated, or ranks disagree on the bucket");
    // As long again as it was before, in memory of this call: what lies in out may not change before all is checked.
    std::vector<std::byte> whole(scales + bytes);
    std::copy_n(payload.begin(), scales, whole.begin());
    lengthen(payload.subspan(scales), std::span(whole).subspan(scales));
    detail::decode_blocks(name(), whole, {n, block}, codes, out, kernel,
                          [&](float scale, std::uint8_t const* from, std::size_t m, float* to) {
                            kernel.add_levels(from, m, weight * (scale * sparsity), 1, to);
                          });
  }

 private:
  static constexpr detail::code_packing codes{0};
  static constexpr std::byte zeros{121};  ///< five of them
  static constexpr std::size_t first_run = 243, longest = 14;

  /// In place: what is written never overtakes what is read.
  static std::size_t shorten(std::span<std::byte> bytes) {
    std::size_t to = 0;
    for (std::size_t i = 0; i < bytes.size();) {
      std::size_t run = 1;
      if (bytes[i] == zeros)
        while (run < longest && i + run < bytes.size() && bytes[i + run] == zeros) ++run;
      bytes[to++] = run > 1 ? static_cast<std::byte>(first_run + run - 2) : bytes[i];
      i += run;
    }
    return to;
  }
  static void lengthen(std::span<std::byte const> in, std::span<std::byte> out) {
    std::size_t to = 0;
    for (std::byte const b : in) {
      auto const value = std::to_integer<std::size_t>(b);
      std::size_t const run = value < first_run ? 1 : value - first_run + 2;
      if (run > out.size() - to) refuse(in.size(), out.size());
      if (run == 1)
        out[to] = b;
      else
        std::memset(out.data() + to, std::to_integer<int>(zeros), run);
      to += run;
    }
    if (to != out.size()) refuse(in.size(), out.size());
  }
  [[noreturn]] DOVETAIL_COLD static void refuse(std::size_t have, std::size_t want) {
    throw input_error(message(name(), ": ", have, " bytes of runs do not make the ", want,
                              " that were encoded: the payload is damaged, or ranks disagree on the bucket"));
  }
};

}  // namespace dovetail::compress
