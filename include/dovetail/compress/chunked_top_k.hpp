// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/bits.hpp>
#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Sends of every chunk of consecutive elements the k = max(1, ceil(ratio · chunk)) of largest magnitude, exactly. An
/// index within a chunk takes few bits: 12 of 4096, where top_k takes 32. Each chunk loses at most 1 − k / chunk of its
/// own square, so elements with small gradients are sent as often as others.
///
/// A payload is the values of all chunks (f32), then the indices within the chunk, of ceil(log2(chunk)) bits each
/// without a gap; by rising index, the same on every processor, of fixed size. The last chunk may be shorter and its k
/// smaller. NaN counts as the largest magnitude: it is sent, and seen. Ties: as top_k.
///
/// Errors: argument_error for a ratio outside (0, 1], a chunk outside [2, 65536] or more than 2^32 − 1 elements;
/// input_error for payloads of another size, or with indices that do not rise or lie outside of their chunk.
///
/// Sources: Peng, Quesnelle, Kingma, "DeMo: Decoupled Momentum Optimization", 2024 (top-k of chunks); indices of 12
/// bits in chunks of 4096: Sarfi et al., "Communication Efficient LLM Pre-training with SparseLoCo", 2025.
struct chunked_top_k {
  float ratio = 0.01f;
  int chunk = 4096;  ///< consecutive elements
  static constexpr auto describe() {
    return policy{"chunked_top_k", field{"ratio", &chunked_top_k::ratio, ranges::positive_unit},
                  field{"chunk", &chunked_top_k::chunk, bounds{.low = 2, .high = 65536}}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = true;
  static constexpr bool contraction = true;  ///< d = k / chunk, of the chunk where it is least

  /// Only scratch memory, reused from step to step: nothing to save, and all states are equal.
  struct state {
    selection_scratch scratch;
    buffer<std::uint32_t> pairs;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "chunked top-k"; }
  /// Number of elements that are sent of n.
  constexpr std::size_t count(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
    return n / length() * detail::kept(ratio, length()) + detail::kept(ratio, n % length());
  }
  constexpr std::size_t wire_size(std::size_t n) const {
    std::size_t const k = count(n);
    return 4 * k + bytes_of_bits(k, width());
  }
  state init(bucket const& b) const {
    static_cast<void>(count(b.size()));
    return {{}, buffer<std::uint32_t>(2 * detail::kept(ratio, std::min(length(), b.size())))};
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
    std::size_t const n = b.size(), bytes = wire_size(n);
    require_room(name(), n, bytes, out);
    detail::grow(s.pairs, 2 * detail::kept(ratio, std::min(length(), n)));
    std::byte* value = out.data();
    detail::bit_sink indices(value + 4 * count(n));
    for (std::size_t at = 0; at < n; at += length()) {
      std::size_t const here = std::min(length(), n - at), k = detail::kept(ratio, here);
      select_largest(b.values.subspan(at, here), residual ? residual + at : nullptr, next ? next + at : nullptr, k,
                     s.scratch, reinterpret_cast<std::byte*>(s.pairs.data()), kernel);
      for (std::size_t i = 0; i < k; ++i, value += 4) {
        indices.put(s.pairs[2 * i], width());
        detail::store_word(value, s.pairs[2 * i + 1]);
      }
    }
    indices.finish();
    return bytes;
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const n = out.size();
    require_payload(name(), n, wire_size(n), payload);
    auto const indices = payload.subspan(4 * count(n));
    // Everything is checked before anything is added.
    detail::bit_source check(indices);
    for (std::size_t at = 0; at < n; at += length()) {
      std::size_t const here = std::min(length(), n - at), k = detail::kept(ratio, here);
      std::size_t next = 0;  // the least index that may come
      for (std::size_t i = 0; i < k; ++i) {
        std::size_t const index = check.get(width());
        if (index < next || index >= here) refuse(at, index, next, here);
        next = index + 1;
      }
    }
    require<input_error>(check.at_end(), name(), ": bits are set behind the last index: the payload is damaged");
    detail::bit_source source(indices);
    std::byte const* value = payload.data();
    for (std::size_t at = 0; at < n; at += length()) {
      std::size_t const k = detail::kept(ratio, std::min(length(), n - at));
      for (std::size_t i = 0; i < k; ++i, value += 4)
        out[at + source.get(width())] += rounded(weight * detail::load_float(value));
    }
  }

 private:
  constexpr std::size_t length() const { return static_cast<std::size_t>(chunk); }
  constexpr int width() const { return static_cast<int>(std::bit_width(static_cast<unsigned>(chunk - 1))); }
  [[noreturn]] DOVETAIL_COLD static void refuse(std::size_t at, std::size_t index, std::size_t next, std::size_t n) {
    throw input_error(message(name(), ": in the chunk at ", at, " the index ", index, " where one from ", next,
                              " to below ", n, " must be: the payload is damaged"));
  }
};

}  // namespace dovetail::compress
