// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/random_runs.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>

namespace dovetail::compress {

/// Sends k = max(1, ceil(ratio · n)) random elements, the same ones on all ranks: 4k bytes, no index, and payloads may
/// be added on the wire. No element is drawn twice, each with the probability k/n exactly.
///
/// A payload is k floats in the order of their places on a circle that begins at a random element (random_runs.hpp), in
/// native byte order. Places are a function of seed, step and bucket: decode_add needs the context of the encode.
/// - `random_k` decodes to the elements as they were: E|decoded − x|² = (1 − k/n)|x|², a contraction that wants error
///   feedback. Ranks leave out the same elements, which wait.
/// - `scaled_random_k` decodes to n/k times them: unbiased, with a relative variance of n/k − 1. It is no contraction,
///   and error_feedback refuses it: its residual would grow by 10^12 in 60 steps.
/// Where a gradient is not finite and is not sent, the first float is NaN in its place, and every rank sees it: that is
/// why encoding reads all elements. Decoding reads and writes k of them.
///
/// Errors: argument_error for a ratio outside (0, 1] or more than 2^32 − 1 elements; input_error for payloads of
/// another size.
///
/// Sources: Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, definition 2.2 (rand-k, unscaled); scaled: Wangni
/// et al., "Gradient Sparsification for Communication-Efficient Distributed Optimization", NeurIPS 2018, section 4
/// (uniform sampling).
template <bool Scaled>
struct basic_random_k {
  float ratio = 0.01f;
  static constexpr auto describe() {
    constexpr auto part = field{"ratio", &basic_random_k::ratio, ranges::positive_unit};
    return Scaled ? policy{"scaled_random_k", part} : policy{"random_k", part};
  }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = Scaled;
  static constexpr bool wants_error_feedback = !Scaled;
  static constexpr bool contraction = !Scaled;  ///< d = k / n
  using wire_type = float;

  static constexpr char const* name() { return Scaled ? "scaled random-k" : "random-k"; }
  /// Number of elements that are sent of n.
  constexpr std::size_t count(std::size_t n) const {
    check(n);
    return detail::kept(ratio, n);
  }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * count(n); }
  no_state init(bucket const& b) const {
    check(b.size());
    return {};
  }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    detail::gather_runs(b.values, runs(b.size(), where), out);
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, context const& where) const {
    std::size_t const n = out.size();
    require_payload(name(), n, wire_size(n), payload);
    detail::add_runs(payload, runs(n, where), out, Scaled && n ? detail::scaled_by(weight, n, count(n)) : weight);
  }
  /// Which elements are sent of n, as the kernels of a device want to know it.
  detail::random_runs runs(std::size_t n, context const& where) const { return {n, count(n), 1, where, true}; }

 private:
  constexpr void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
};
using random_k = basic_random_k<false>;
using scaled_random_k = basic_random_k<true>;

/// random_k of contiguous runs of `block` elements, which memory and GPUs like better: the same bytes, and the same
/// probability k/n of each element. Runs are shortened by at most one element (where there is one, to k) so that k is
/// that of random_k, and their places are drawn as its elements' are; a run may lie over the bucket's end.
///
/// Payloads, non-finite elements and the scaled form: as of basic_random_k.
///
/// Errors: argument_error for a ratio outside (0, 1], a block below 1 or more than 2^32 − 1 elements; input_error for
/// payloads of another size.
///
/// Sources: of the elements' form, Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, definition 2.2, and Wangni
/// et al., "Gradient Sparsification for Communication-Efficient Distributed Optimization", NeurIPS 2018, section 4.
template <bool Scaled>
struct basic_block_random_k {
  float ratio = 0.01f;
  int block = 256;  ///< elements of a run
  static constexpr auto describe() {
    constexpr auto part = field{"ratio", &basic_block_random_k::ratio, ranges::positive_unit};
    constexpr auto run = field{"block", &basic_block_random_k::block, ranges::count};
    return Scaled ? policy{"scaled_block_random_k", part, run} : policy{"block_random_k", part, run};
  }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = Scaled;
  static constexpr bool wants_error_feedback = !Scaled;
  static constexpr bool contraction = !Scaled;  ///< d = k / n
  using wire_type = float;

  static constexpr char const* name() { return Scaled ? "scaled block random-k" : "block random-k"; }
  constexpr std::size_t count(std::size_t n) const {
    check(n);
    return detail::kept(ratio, n);
  }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * count(n); }
  no_state init(bucket const& b) const {
    check(b.size());
    return {};
  }
  std::size_t encode(bucket const& b, no_state&, std::span<std::byte> out, context const& where) const {
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    detail::gather_runs(b.values, runs(b.size(), where), out);
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, context const& where) const {
    std::size_t const n = out.size();
    require_payload(name(), n, wire_size(n), payload);
    detail::add_runs(payload, runs(n, where), out, Scaled && n ? detail::scaled_by(weight, n, count(n)) : weight);
  }
  detail::random_runs runs(std::size_t n, context const& where) const {
    return {n, count(n), static_cast<std::size_t>(block), where, true};
  }

 private:
  constexpr void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
};
using block_random_k = basic_block_random_k<false>;
using scaled_block_random_k = basic_block_random_k<true>;

}  // namespace dovetail::compress
