// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/entries.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// top_k with packed indices: of 1 % of the elements about 5.02 bytes each where top_k takes 8. The same elements.
///
/// A payload is k values (f32), then their indices (compress/indices.hpp), the same on every processor. Its size
/// depends on where the elements are, wire_size is the most that it can be; so it cannot be exchanged in two phases.
/// NaN counts as the largest magnitude: it is sent, and seen.
///
/// Errors: argument_error for a ratio outside (0, 1] or more than 2^32 − 1 elements; input_error for payloads that are
/// truncated, too long, or whose indices are damaged.
///
/// Source: Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017; the code of the
/// indices: compress/indices.hpp.
struct packed_top_k {
  float ratio = 0.01f;
  static constexpr auto describe() {
    return policy{"packed_top_k", field{"ratio", &packed_top_k::ratio, ranges::positive_unit}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d = k / n

  /// Only scratch memory, reused from step to step: nothing to save, and all states are equal.
  struct state {
    selection_scratch scratch;
    buffer<std::uint32_t> pairs;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "packed top-k"; }
  /// Number of elements that are sent of n.
  constexpr std::size_t count(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
    return detail::kept(ratio, n);
  }
  constexpr std::size_t wire_size(std::size_t n) const { return detail::entries_size(n, count(n)); }
  state init(bucket const& b) const { return {{}, buffer<std::uint32_t>(2 * count(b.size()))}; }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    return select(b, nullptr, nullptr, s, out);
  }
  /// For error feedback: encodes the sum of bucket and residual; `next` becomes that sum less what is sent.
  std::size_t encode_with_residual(bucket const& b, std::span<float> residual, std::span<float> next, state& s,
                                   std::span<std::byte> out) const {
    return select(b, residual.data(), next.data(), s, out);
  }
  /// What is remembered is memory that is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const k = count(out.size());
    detail::check_entries(name(), payload, out.size(), k);
    detail::add_entries(name(), payload, k, out, weight);
  }
  std::size_t read_entries(std::span<std::byte const> payload, std::size_t n, std::span<std::uint32_t> pairs) const {
    detail::read_entries(name(), payload, n, count(n), pairs);
    return count(n);
  }
  std::size_t write_entries(std::span<std::uint32_t> pairs, std::size_t n, std::span<std::byte> out) const {
    require_room(name(), n, wire_size(n), out);
    return detail::write_entries(pairs.data(), pairs.size() / 2, n, out.data());
  }

 private:
  std::size_t select(bucket const& b, float* residual, float* next, state& s, std::span<std::byte> out) const {
    std::size_t const n = b.size(), k = count(n);
    require_room(name(), n, wire_size(n), out);
    detail::grow(s.pairs, 2 * k);
    select_largest(b.values, residual, next, k, s.scratch, reinterpret_cast<std::byte*>(s.pairs.data()),
                   kernels::best());
    return detail::write_entries(s.pairs.data(), k, n, out.data());
  }
};

}  // namespace dovetail::compress
