// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {
namespace detail {

/// Numbers in half precision, each times `scale`, as compress::read reads them.
template <class Half>
struct half_payload {
  std::span<std::byte const> payload;
  float scale = 1;
  std::size_t size() const { return payload.size() / 2; }
  std::size_t bytes() const { return payload.size(); }
  void add(std::size_t first, std::span<float> out, float weight = 1) const {
    auto const& kernel = kernels::best();
    std::byte const* const from = payload.data() + 2 * first;
    if constexpr (std::is_same_v<Half, dovetail::fp16>)
      kernel.add_fp16(from, out.size(), weight / scale, out.data());
    else
      kernel.add_bf16(from, out.size(), weight / scale, out.data());
  }
};

}  // namespace detail

/// Gradients in half precision, rounded to nearest even: 2n bytes. `Half` is dovetail::fp16 or dovetail::bf16.
///
/// fp16 keeps 11 bits between 6e-5 and 65504; larger magnitudes become infinity, which the skipped step shows, and
/// those below 3e-8 become 0. `scale` moves gradients between the two: they are sent times `scale`, and what is decoded
/// is divided by it. Above 1 for small gradients, 1 / P where the sum over P ranks would overflow; a power of two
/// changes no other bit. bf16 keeps 8 bits and the whole range of fp32. NaN stays NaN. A payload is n numbers of 16
/// bits in native byte order.
///
/// Errors: argument_error for a scale that is not positive; input_error for payloads of another size.
///
/// Sources: fp16 and scaling: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2; bf16: Kalamkar
/// et al., "A Study of BFLOAT16 for Deep Learning Training", 2019.
template <class Half>
struct half {
  static_assert(std::is_same_v<Half, dovetail::fp16> || std::is_same_v<Half, dovetail::bf16>,
                "compress::half converts to dovetail::fp16 or dovetail::bf16");
  float scale = 1;  ///< of what is sent
  static constexpr auto describe() { return policy{"half", field{"scale", &half::scale, ranges::positive}}; }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = true;
  using wire_type = Half;

  static constexpr char const* name() { return is_fp16 ? "fp16" : "bf16"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 2 * n; }
  no_state init(bucket const&) const {
    check_policy(*this);
    return {};
  }

  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    check_policy(*this);
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    if (scale < 1 || scale > 1)
      scaled(b.values, out.data());
    else
      convert(b.values.data(), b.size(), out.data());
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    reader(payload, out.size()).add(0, out, weight);
  }
  detail::half_payload<Half> reader(std::span<std::byte const> payload, std::size_t n) const {
    check_policy(*this);
    require_payload(name(), n, wire_size(n), payload);
    return {payload, scale};
  }

 private:
  static constexpr bool is_fp16 = std::is_same_v<Half, dovetail::fp16>;

  static void convert(float const* x, std::size_t n, std::byte* out) {
    auto const& kernel = kernels::best();
    if constexpr (is_fp16)
      kernel.to_fp16(x, n, out);
    else
      kernel.to_bf16(x, n, out);
  }
  void scaled(std::span<float const> x, std::byte* out) const {
    float part[1024];
    for (std::size_t at = 0; at < x.size(); at += 1024) {
      std::size_t const n = std::min<std::size_t>(1024, x.size() - at);
      for (std::size_t i = 0; i < n; ++i) part[i] = x[at + i] * scale;
      convert(part, n, out + 2 * at);
    }
  }
};

using fp16 = half<dovetail::fp16>;
using bf16 = half<dovetail::bf16>;

/// bf16 rounded up or down at random so that the expectation is the gradient: 2n bytes.
///
/// A payload is n numbers of 16 bits in native byte order. What ranks' numbers add up to on the wire is rounded to
/// nearest there. What would become infinite is rounded down; NaN and infinity stay.
///
/// Errors: input_error for payloads of another size.
///
/// Source: Gupta et al., "Deep Learning with Limited Numerical Precision", ICML 2015, section 3 (stochastic rounding).
struct stochastic_bf16 {
  static constexpr auto describe() { return policy<stochastic_bf16>{"stochastic_bf16"}; }
  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;
  using wire_type = dovetail::bf16;

  static constexpr char const* name() { return "stochastic bf16"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 2 * n; }
  no_state init(bucket const&) const { return {}; }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    return encode(b, out, where, quantize::best());
  }
  /// On the loops of one cpu_level, for tests and benchmarks.
  std::size_t encode(bucket const& b, std::span<std::byte> out, context const& where,
                     quantize::kernel_set const& kernel) const {
    require_room(name(), b.size(), wire_size(b.size()), out);
    kernel.to_bf16_random(b.values.data(), b.size(), element_random(where.own_random()), 0, out.data());
    return wire_size(b.size());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    reader(payload, out.size()).add(0, out, weight);
  }
  detail::half_payload<dovetail::bf16> reader(std::span<std::byte const> payload, std::size_t n) const {
    require_payload(name(), n, wire_size(n), payload);
    return {payload};
  }
};

}  // namespace dovetail::compress
