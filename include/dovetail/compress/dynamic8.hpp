// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// 8-bit dynamic tree quantization: 127 magnitudes from 5.5e-7 to 1 in units of a block's largest, the closer together
/// the larger they are, to nearest. Seven decimal orders in a byte: small gradients beside large ones survive where
/// int8 makes them 0.
///
/// Of the magnitudes, 2^(6−e) lie between 10^(−e−1) and 10^−e, e = 0 … 6, in the middle of equal parts of that range;
/// the largest is 1, so that the block's largest element is exact. A payload is max|x| of each block (fp32), then a
/// byte an element: 127 plus or minus the magnitude's number, 0 for 0. `block` is in elements; 0 makes the bucket one
/// block. A block with an element that is not finite is NaN throughout.
///
/// Errors: input_error for payloads of another size or with negative magnitudes.
///
/// Source: Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", ICLR 2016, section 2.2.
struct dynamic8 {
  std::size_t block = 512;
  static constexpr auto describe() { return policy{"dynamic8", field{"block", &dynamic8::block, bounds{.low = 0}}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = true;

  static constexpr char const* name() { return "dynamic8"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * detail::block_count{n, block}.blocks() + n; }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    require_room(name(), b.size(), wire_size(b.size()), out);
    return detail::encode_blocks(b.values, {b.size(), block}, norm::max, {8}, 127, out, quantize::best(),
                                 [](detail::block_scale const& s, std::span<float const> x, std::uint32_t, auto* to) {
                                   for (std::size_t i = 0; i < x.size(); ++i) {
                                     float const v = x[i] * s.power * s.inverse;
                                     int const k = nearest(std::fabs(v));
                                     to[i] = static_cast<std::uint8_t>(v < 0 ? 127 - k : 127 + k);
                                   }
                                 });
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    detail::decode_blocks(name(), payload, {out.size(), block}, {8}, out, quantize::best(),
                          [&](float scale, std::uint8_t const* from, std::size_t n, float* to) {
                            quantize::best().add_values(from, n, weight * scale, values.data(), to);
                          });
  }
  /// Magnitude k in units of the largest; 0 is 0.
  static constexpr float magnitude(int k) { return tree[static_cast<std::size_t>(k)]; }

 private:
  static constexpr std::array<float, 128> tree = [] {
    std::array<float, 128> t{};
    std::size_t at = 1;
    double power = 1e-6;
    for (int e = 6; e >= 0; --e, power *= 10) {
      int const count = 1 << (6 - e);
      for (int i = 0; i < count; ++i) t[at++] = static_cast<float>(power * (0.1 + 0.9 * (i + 0.5) / count));
    }
    t[127] = 1;
    return t;
  }();
  /// What a code adds: the last one is never sent, and counts as the largest.
  static constexpr std::array<float, 256> values = [] {
    std::array<float, 256> v{};
    for (std::size_t i = 0; i < 256; ++i) v[i] = i < 127 ? -tree[127 - i] : tree[i < 255 ? i - 127 : 127];
    return v;
  }();
  /// Halfway between two magnitudes belongs to the smaller one.
  static constexpr std::array<float, 128> halfway = [] {
    std::array<float, 128> h{};
    for (std::size_t i = 0; i < 127; ++i) h[i] = (tree[i] + tree[i + 1]) / 2;
    h[127] = 2;
    return h;
  }();
  static int nearest(float v) {
    int at = 0;
    for (int step = 64; step > 0; step /= 2) at += v > halfway[static_cast<std::size_t>(at + step - 1)] ? step : 0;
    return at;
  }
};

}  // namespace dovetail::compress
