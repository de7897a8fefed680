// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <type_traits>

#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/half.hpp>

namespace dovetail::compress {

/// Gradients in half precision, rounded to nearest even: 2n bytes. `Half` is dovetail::fp16 or dovetail::bf16.
///
/// fp16 keeps 11 bits between 6e-5 and 65504; larger magnitudes become infinity, which the skipped step shows, and
/// those below 3e-8 become 0: scale small gradients. bf16 keeps 8 bits and the whole range of fp32. NaN stays NaN.
template <class Half>
struct half {
  static_assert(std::is_same_v<Half, dovetail::fp16> || std::is_same_v<Half, dovetail::bf16>,
                "compress::half converts to dovetail::fp16 or dovetail::bf16");
  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = true;
  using wire_type = Half;

  static constexpr char const* name() { return is_fp16 ? "fp16" : "bf16"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 2 * n; }
  no_state init(bucket const&) const { return {}; }

  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    auto const& kernel = kernels::best();
    if constexpr (is_fp16)
      kernel.to_fp16(b.values.data(), b.size(), out.data());
    else
      kernel.to_bf16(b.values.data(), b.size(), out.data());
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    require_payload(name(), out.size(), wire_size(out.size()), payload);
    auto const& kernel = kernels::best();
    if constexpr (is_fp16)
      kernel.add_fp16(payload.data(), out.size(), weight, out.data());
    else
      kernel.add_bf16(payload.data(), out.size(), weight, out.data());
  }

 private:
  static constexpr bool is_fp16 = std::is_same_v<Half, dovetail::fp16>;
};

using fp16 = half<dovetail::fp16>;
using bf16 = half<dovetail::bf16>;

}  // namespace dovetail::compress
