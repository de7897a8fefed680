// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/indices.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/signs.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Sends one bit of each element that has grown beyond a constant:
///   r = r + gradient,  sent = sign(r) · tau where |r| > tau, 0 elsewhere,  r = r − sent.
///
/// The residual r is inside, two floats an element with the one before: a skipped step is taken back to the bit. `tau`
/// is in units of the gradient, and must follow their scale: of gradients that stay above it only tau is sent in each
/// step, and the residual grows; that is why this is no contraction, and error_feedback must not be around it.
///
/// A payload is the number of elements that are sent (u32), their signs (a bit each, 1 = negative, zeros fill the last
/// byte), then their indices (compress/indices.hpp), the same on every processor; nothing to send are 4 bytes. A
/// gradient that is not finite is sent as the number 2^32 − 1 alone, which decodes to NaN in every element; the
/// residual stays as it was. Where a sum with the residual overflows the same is sent, and that residual restarts at 0,
/// also when the step is taken back.
///
/// Errors: argument_error for a tau that is not positive and finite, more than 2^32 − 1 elements or a state of another
/// size; input_error for payloads that are truncated, too long, or damaged in number, signs or indices.
///
/// Source: Strom, "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing", Interspeech 2015,
/// algorithm 1.
struct threshold {
  float tau = 1e-3f;  ///< the magnitude that is sent
  static constexpr auto describe() { return policy{"threshold", field{"tau", &threshold::tau, ranges::positive}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = false;

  struct state {
    buffer<float> residual;
    buffer<float> before;  ///< the last encode: no part of the value
    bool open = false;     ///< whether the last encode can be taken back
    buffer<std::uint32_t> indices, values;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "residual", residual.span())};
      all.back().kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) { return a.residual == b.residual; }
  };

  static constexpr char const* name() { return "threshold"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    check(n);
    return detail::signed_size(n, n);
  }
  state init(bucket const& b) const {
    check(b.size());
    return {buffer<float>(b.size()), buffer<float>(b.size()), false, {}, {}};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    return encode_on(b, s, out, kernels::best());
  }
  /// The same on the loops of one cpu_level.
  std::size_t encode_on(bucket const& b, state& s, std::span<std::byte> out, kernels::kernel_set const& kernel) const {
    std::size_t const n = b.size();
    require(s.residual.size() == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.residual.size(),
            ": make one state per bucket with init");
    require_room(name(), n, wire_size(n), out);
    s.open = false;
    float const *const g = b.values.data(), *const r = s.residual.data();
    float* const next = s.before.data();
    constexpr std::size_t chunk = 4096, slack = 16;
    auto const above = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(tau) + 1);
    std::size_t found = 0;
    bool finite = true;
    for (std::size_t at = 0; at < n; at += chunk) {
      std::size_t const here = std::min(chunk, n - at);
      reserve(s, found, chunk + slack);
      std::size_t const more =
          kernel.add_compact(g + at, r + at, next + at, here, above, static_cast<std::uint32_t>(at),
                             s.indices.data() + found, s.values.data() + found);
      for (std::size_t i = found; i < found + more; ++i) {
        std::uint32_t const bits = s.values[i];
        finite &= (bits & 0x7f800000u) != 0x7f800000u;
        next[s.indices[i]] = std::bit_cast<float>(bits) - signed_tau(bits >> 31);
      }
      found += more;
    }
    if (!finite) return send_non_finite(b, s, out);
    std::swap(s.residual, s.before);
    s.open = true;
    return detail::write_signed(s.indices.data(), s.values.data(), found, n, out.data());
  }
  void commit(state& s) const { s.open = false; }
  void rollback(state& s) const {
    if (std::exchange(s.open, false)) std::swap(s.residual, s.before);
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    check(out.size());
    if (detail::is_non_finite(payload)) {
      for (float& v : out) v += not_a_number<float>();
      return;
    }
    float const magnitude = weight * tau;
    detail::add_signed(name(), payload, out, [=](std::uint32_t) { return magnitude; });
  }

 private:
  constexpr void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
  float signed_tau(std::uint32_t negative) const { return negative ? -tau : tau; }
  /// Room for `more` behind the first `used`.
  static void reserve(state& s, std::size_t used, std::size_t more) {
    for (auto* b : {&s.indices, &s.values}) {
      if (b->size() >= used + more) continue;
      buffer<std::uint32_t> larger(std::max(used + more, 2 * b->size()));
      std::copy_n(b->data(), used, larger.data());
      *b = std::move(larger);
    }
  }
  /// The residual is as it was, but for 0 where the sum with it has overflowed.
  DOVETAIL_COLD std::size_t send_non_finite(bucket const& b, state& s, std::span<std::byte> out) const {
    for (std::size_t i = 0; i < b.size(); ++i)
      if (is_finite(b.values[i]) && !is_finite(s.residual[i] + b.values[i])) s.residual[i] = 0;
    return detail::write_non_finite(out.data());
  }
};

}  // namespace dovetail::compress
