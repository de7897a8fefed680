// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>

namespace dovetail::compress {

/// Sends the k = max(1, ceil(ratio · n)) elements of largest magnitude, exactly: 8k bytes.
///
/// A payload is k pairs (index u32, value f32) in the order of the indices, in native byte order. Among equal
/// magnitudes at the threshold an even spread over their positions is taken, the same on every machine. NaN counts as
/// the largest magnitude: it is sent, and seen. `ratio` is read as the decimal it was written as: 0.1f of 10 elements
/// is 1.
///
/// Errors: argument_error for a ratio outside (0, 1] or more than 2^32 − 1 elements; input_error for payloads of
/// another size or with indices that do not rise or lie outside. Non-finite values pass: they are how ranks learn of
/// them.
///
/// Source: Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017.
struct top_k {
  float ratio = 0.01f;
  static constexpr auto describe() { return policy{"top_k", field{"ratio", &top_k::ratio, ranges::positive_unit}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d = k / n

  /// Only scratch memory, reused from step to step: nothing to save, and all states are equal.
  struct state {
    selection_scratch scratch;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "top-k"; }
  /// Number of elements that are sent of n.
  constexpr std::size_t count(std::size_t n) const {
    check(n);
    return detail::kept(ratio, n);
  }
  constexpr std::size_t wire_size(std::size_t n) const { return 8 * count(n); }
  state init(bucket const& b) const {
    check(b.size());
    return {};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    return select(b, nullptr, nullptr, s, out, kernels::best());
  }
  /// For error feedback: encodes the sum of bucket and residual; `next` becomes that sum less what is sent.
  std::size_t encode_with_residual(bucket const& b, std::span<float> residual, std::span<float> next, state& s,
                                   std::span<std::byte> out) const {
    return select(b, residual.data(), next.data(), s, out, kernels::best());
  }
  /// What is remembered is memory that is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}
  /// Encoding on the loops of one cpu_level, for tests and benchmarks; `residual` and `next` may be null.
  std::size_t select(bucket const& b, float* residual, float* next, state& s, std::span<std::byte> out,
                     kernels::kernel_set const& kernel) const {
    std::size_t const k = count(b.size());
    require_room(name(), b.size(), 8 * k, out);
    select_largest(b.values, residual, next, k, s.scratch, out.data(), kernel);
    return 8 * k;
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
      std::size_t const k = payload_.size() / 8, end = first + out.size();
      for (std::size_t i = first ? entry_from(first) : 0; i < k; ++i) {
        std::size_t const index = read<std::uint32_t>(payload_.data() + 8 * i);
        if (index >= end) break;
        out[index - first] += rounded(weight * read<float>(payload_.data() + 8 * i + 4));  // as other codecs' kernels
      }
    }

   private:
    friend struct top_k;
    payload_reader(std::span<std::byte const> payload, std::size_t n) : payload_(payload), n_(n) {}
    /// The first entry whose index is at least `index`.
    std::size_t entry_from(std::size_t index) const {
      std::size_t low = 0, high = payload_.size() / 8;
      while (low < high) {
        std::size_t const middle = (low + high) / 2;
        if (read<std::uint32_t>(payload_.data() + 8 * middle) < index)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    }
    std::span<std::byte const> payload_;
    std::size_t n_;
  };
  payload_reader reader(std::span<std::byte const> payload, std::size_t n) const {
    check_payload(payload, n);
    return {payload, n};
  }
  /// The payload as it is: pairs.
  std::size_t read_entries(std::span<std::byte const> payload, std::size_t n, std::span<std::uint32_t> pairs) const {
    std::size_t const k = check_payload(payload, n);
    if (k) std::memcpy(pairs.data(), payload.data(), payload.size());
    return k;
  }
  std::size_t write_entries(std::span<std::uint32_t> pairs, std::size_t n, std::span<std::byte> out) const {
    require_room(name(), n, pairs.size_bytes(), out);
    if (!pairs.empty()) std::memcpy(out.data(), pairs.data(), pairs.size_bytes());
    return pairs.size_bytes();
  }

 private:
  /// Before anything is added: rising indices are distinct, and the last one bounds them all. Returns k.
  std::size_t check_payload(std::span<std::byte const> payload, std::size_t n) const {
    std::size_t const k = count(n);
    require_payload(name(), n, 8 * k, payload);
    std::int64_t last = -1;
    for (std::size_t i = 0; i < k; ++i) {
      std::int64_t const index = read<std::uint32_t>(payload.data() + 8 * i);
      require<input_error>(index > last && index < static_cast<std::int64_t>(n), name(), ": entry ", i, " of ", k,
                           " has the index ", index, " after ", last, " for ", n,
                           " elements: indices must rise below it, the payload is damaged");
      last = index;
    }
    return k;
  }
  template <class T>
  static T read(std::byte const* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  constexpr void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
};

}  // namespace dovetail::compress
