// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/entries.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/random_runs.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// top_k whose threshold is the one of a random sample: what is larger is sent, at most the k largest of it and at
/// least 0.8 k. Between them the sample decides how many; top_k and packed_top_k send k exactly.
///
/// The sample is 1 % of the elements, no element twice, and as many more as are needed for 64 of them to be above the
/// threshold; it is drawn anew in each step, by each rank. Where more than 1.3 k elements are above the threshold, or
/// fewer than 0.8 k, the sample was misleading and the k largest of all are found as top_k finds them. Otherwise those
/// above the threshold are sent, or the k largest of these.
///
/// A payload is their number (u32), the values (f32), then the indices (compress/indices.hpp), the same on every
/// processor. Nothing (no byte) is the payload of no element. NaN counts as the largest magnitude: it is sent, and
/// seen.
///
/// Errors: argument_error for a ratio outside (0, 1] or more than 2^32 − 1 elements; input_error for payloads that are
/// truncated, too long, or damaged in number or indices.
///
/// Source: Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.1 (sampling) and appendix (hierarchical
/// selection).
struct sampled_top_k {
  float ratio = 0.01f;
  static constexpr auto describe() {
    return policy{"sampled_top_k", field{"ratio", &sampled_top_k::ratio, ranges::positive_unit}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d = 0.8 k / n

  /// Only scratch memory, reused from step to step: nothing to save, and all states are equal.
  struct state {
    selection_scratch scratch;
    buffer<std::uint32_t> pairs;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "sampled top-k"; }
  /// Number of elements that are sent of n at most.
  constexpr std::size_t count(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
    return detail::kept(ratio, n);
  }
  /// Number of elements that are sent of n at least.
  constexpr std::size_t least(std::size_t n) const { return (4 * count(n) + 4) / 5; }
  constexpr std::size_t wire_size(std::size_t n) const {
    return n == 0 ? 0 : 4 + 4 * count(n) + indices_size_up_to(n, count(n));
  }
  state init(bucket const& b) const { return {{}, buffer<std::uint32_t>(2 * count(b.size()))}; }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    std::size_t const n = b.size();
    require_room(name(), n, wire_size(n), out);
    if (n == 0) return 0;
    detail::grow(s.pairs, 2 * count(n));
    std::size_t const sent = select(b.values, s, where, kernels::best());
    return write_entries(s.pairs.span().first(2 * sent), n, out);
  }
  std::size_t write_entries(std::span<std::uint32_t> pairs, std::size_t n, std::span<std::byte> out) const {
    require_room(name(), n, wire_size(n), out);
    if (n == 0) return 0;
    detail::store_word(out.data(), static_cast<std::uint32_t>(pairs.size() / 2));
    return 4 + detail::write_entries(pairs.data(), pairs.size() / 2, n, out.data() + 4);
  }
  /// What is remembered is memory that is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const k = check_count(payload, out.size());
    if (k == 0) return;
    payload = payload.subspan(4);
    detail::check_entries(name(), payload, out.size(), k);
    detail::add_entries(name(), payload, k, out, weight);
  }
  std::size_t read_entries(std::span<std::byte const> payload, std::size_t n, std::span<std::uint32_t> pairs) const {
    std::size_t const k = check_count(payload, n);
    if (k > 0) detail::read_entries(name(), payload.subspan(4), n, k, pairs);
    return k;
  }

 private:
  /// The number of entries that a payload says it has, 0 of no elements alone.
  std::size_t check_count(std::span<std::byte const> payload, std::size_t n) const {
    require<input_error>(payload.size() >= 4 || (n == 0 && payload.empty()), name(), ": a payload of ", payload.size(),
                         " bytes for ", n, " elements: it is truncated");
    if (n == 0) {
      require_payload(name(), n, 0, payload);
      return 0;
    }
    std::size_t const k = detail::load_word<std::uint32_t>(payload.data());
    require<input_error>(k >= least(n) && k <= count(n), name(), ": a payload of ", k, " of ", n,
                         " elements, where from ", least(n), " to ", count(n),
                         " are sent: it is damaged, or ranks disagree on the bucket");
    return k;
  }
  /// How many elements are above the sample's threshold, of which `pairs` becomes those that are sent.
  std::size_t select(std::span<float const> x, state& s, context const& where,
                     kernels::kernel_set const& kernel) const {
    std::size_t const n = x.size(), k = count(n);
    auto* const pairs = reinterpret_cast<std::byte*>(s.pairs.data());
    auto const exactly = [&] {
      select_largest(x, nullptr, nullptr, k, s.scratch, pairs, kernel);
      return k;
    };
    // 64 hits are within an eighth of what is true twice in three times, and within [0.8, 1.3] nine times in ten.
    std::size_t const samples = std::max(n / 100, 64 * n / k + 1), hits = detail::kept(ratio, samples);
    if (samples >= n / 4) return exactly();
    std::size_t const most = k + k / 10 * 3 + k % 10 * 3 / 10, room = most + chunk + 16;
    detail::grow(s.scratch.keys, std::max(samples, room));
    detail::grow(s.scratch.indices, room);
    detail::grow(s.scratch.values, room);
    auto* const keys = s.scratch.keys.data();
    std::size_t drawn = 0;
    detail::random_runs(n, samples, 1, where, false).each([&](std::size_t at, std::size_t) {
      keys[drawn++] = detail::magnitude_key(x[at]);
    });
    std::nth_element(keys, keys + hits - 1, keys + samples, std::greater<>{});
    std::uint32_t const bound = std::max(keys[hits - 1], 1u);  // zeros are sent by the exact selection only

    std::size_t found = 0;
    auto *const indices = s.scratch.indices.data(), *const values = s.scratch.values.data();
    for (std::size_t at = 0; at < n && found <= most; at += chunk)
      found += kernel.compact(x.data() + at, std::min(chunk, n - at), static_cast<std::int32_t>(bound),
                              static_cast<std::uint32_t>(at), indices + found, values + found);
    if (found > most || found < least(n)) return exactly();
    if (found <= k) {
      for (std::size_t i = 0; i < found; ++i) s.pairs[2 * i] = indices[i], s.pairs[2 * i + 1] = values[i];
      return found;
    }
    auto const t = detail::threshold_of_candidates(values, found, k, bound, keys);
    detail::selection_writer(t, k, pairs).write(indices, values, found);
    return k;
  }
  static constexpr std::size_t chunk = 4096;
};

}  // namespace dovetail::compress
