// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstring>
#include <span>

#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/traits.hpp>

namespace dovetail::compress {

/// No compression: the gradient in fp32, 4n bytes.
///
/// A payload is n floats in native byte order. What is not finite stays as it is.
///
/// Errors: input_error for payloads of another size.
struct identity {
  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = true;
  using wire_type = float;

  static constexpr char const* name() { return "identity"; }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * n; }
  no_state init(bucket const&) const { return {}; }

  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out) const {
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    if (bytes) std::memcpy(out.data(), b.values.data(), bytes);
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    require_payload(name(), out.size(), wire_size(out.size()), payload);
    kernels::best().add_float(payload.data(), out.size(), weight, out.data());
  }
};

}  // namespace dovetail::compress
