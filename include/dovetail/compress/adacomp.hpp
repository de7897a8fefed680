// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/segments.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/signs.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/vectors.hpp>

namespace dovetail::compress {

/// Sends what is largest in its neighborhood, or would be after one more gradient like this one:
///   G = residual + gradient,  H = G + gradient,
///   element i is sent where |H_i| ≥ the largest |G| of its bin,  as sign(G_i) · scale,  residual = G − sent.
/// Bins are `bin` consecutive elements of a tensor; `scale` is the mean over a tensor's bins of their largest |G|. How
/// many are sent adapts: of noise at bins of 500 11 % in the first step and 1.2 % from the fiftieth on. The paper has
/// bins of 50 for convolutions and 500 for others.
///
/// The residual is inside, two floats an element with the one before: a skipped step is taken back to the bit. It wants
/// no error feedback. Bins of zeros send nothing.
///
/// A payload is the number of tensors (u32), of each where it ends (u32) and its scale (f32), then the number of
/// elements that are sent (u32), their signs (a bit each) and their indices (compress/indices.hpp): of noise 9.1 bits
/// an element at bins of 500, where the paper takes 16; the same on every processor. A gradient that is not finite is
/// sent as the number 2^32 − 1 alone, which decodes to NaN in every element; the residual stays as it was. Where a sum
/// with the residual overflows the same is sent, and that residual restarts at 0, also when the step is taken back.
///
/// Errors: argument_error for a bin below 1, more than 2^32 − 1 elements, or a state that was made for another bucket;
/// input_error for payloads that are truncated, too long, or damaged in numbers, scales, signs or indices.
///
/// Source: Chen, Choi, Brand, Agrawal, Zhang, Gopalakrishnan, "AdaComp: Adaptive Residual Gradient Compression for
/// Data-Parallel Distributed Training", AAAI 2018, algorithm 2.
struct adacomp {
  int bin = 500;  ///< consecutive elements of a tensor
  static constexpr auto describe() { return policy{"adacomp", field{"bin", &adacomp::bin, ranges::count}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = false;

  struct state {
    buffer<float> residual;
    buffer<float> before;  ///< the last encode: no part of the value
    bool open = false;     ///< whether the last encode can be taken back
    bucket_layout layout;
    std::vector<detail::segment> segments;
    buffer<std::uint32_t> indices, values;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "residual", residual.span())};
      all.back().kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) { return a.residual == b.residual && a.layout == b.layout; }
  };

  static constexpr char const* name() { return "adacomp"; }
  std::size_t wire_size(std::size_t n) const {
    check(n);
    return 4 + (n ? 8 : 0) + detail::signed_size(n, n);
  }
  std::size_t wire_size(bucket const& b) const {
    check(b.size());
    return 4 + 8 * detail::segments_of(name(), b).size() + detail::signed_size(b.size(), b.size());
  }
  state init(bucket const& b) const {
    check(b.size());
    return {buffer<float>(b.size()),
            buffer<float>(b.size()),
            false,
            bucket_layout(b),
            detail::segments_of(name(), b),
            {},
            {}};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    std::size_t const n = b.size();
    require(s.residual.size() == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.residual.size(),
            ": make one state per bucket with init");
    s.layout.check(b, name());
    require_room(name(), n, wire_size(b), out);
    s.open = false;
    auto const kernel = kernels::best();
    float const* const g = b.values.data();
    float* const sum = s.before.data();
    kernel.add_to(g, s.residual.data(), n, sum);
    if (!kernel.all_finite(sum, n)) return send_non_finite(b, s, out);

    detail::store_word(out.data(), static_cast<std::uint32_t>(s.segments.size()));
    std::byte* to = out.data() + 4;
    std::size_t found = 0;
    for (auto const& piece : s.segments) {
      std::size_t const first = found;
      double largest = 0;  // the sum over the bins
      std::size_t bins = 0;
      for (std::size_t at = piece.begin; at < piece.end; at += length(), ++bins) {
        std::size_t const stop = std::min(at + length(), piece.end);
        reserve(s, found, stop - at);
        float const here = find(g, sum, at, stop, s, found);
        largest += static_cast<double>(here);
      }
      float const scale = static_cast<float>(largest / static_cast<double>(bins));
      detail::store_word(to, static_cast<std::uint32_t>(piece.end));
      detail::store_float(to + 4, scale);
      to += 8;
      for (std::size_t i = first; i < found; ++i) sum[s.indices[i]] -= s.values[i] >> 31 ? -scale : scale;
    }
    std::swap(s.residual, s.before);
    s.open = true;
    to += detail::write_signed(s.indices.data(), s.values.data(), found, n, to);
    return static_cast<std::size_t>(to - out.data());
  }
  void commit(state& s) const { s.open = false; }
  void rollback(state& s) const {
    if (std::exchange(s.open, false)) std::swap(s.residual, s.before);
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const n = out.size();
    check(n);
    if (detail::is_non_finite(payload)) {
      for (float& v : out) v += not_a_number<float>();
      return;
    }
    require<input_error>(payload.size() >= 4, name(), ": a payload of ", payload.size(), " bytes for ", n,
                         " elements: it is truncated");
    std::size_t const pieces = detail::load_word<std::uint32_t>(payload.data());
    payload = payload.subspan(4);
    require<input_error>(payload.size() / 8 >= pieces, name(), ": a payload of ", payload.size(), " bytes behind ",
                         pieces, " tensors: it is truncated or damaged");
    auto const table = payload.first(8 * pieces);
    std::size_t end = 0;
    for (std::size_t i = 0; i < pieces; ++i) {
      std::size_t const stop = detail::load_word<std::uint32_t>(table.data() + 8 * i);
      float const scale = detail::load_float(table.data() + 8 * i + 4);
      require<input_error>(stop > end && is_finite(scale) && std::bit_cast<std::uint32_t>(scale) >> 31 == 0, name(),
                           ": tensor ", i, " ends at ", stop, " behind ", end, " with the scale ", scale,
                           ": the payload is damaged");
      end = stop;
    }
    require<input_error>(end == n, name(), ": the tensors end at ", end, " of ", n,
                         " elements: the payload is damaged, or ranks disagree on the bucket");
    std::byte const* row = table.data();
    detail::add_signed(name(), payload.subspan(8 * pieces), out, [&](std::uint32_t index) {  // indices rise
      while (detail::load_word<std::uint32_t>(row) <= index) row += 8;
      return rounded(weight * detail::load_float(row + 4));
    });
  }

 private:
  void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
  std::size_t length() const { return static_cast<std::size_t>(bin); }
  static void reserve(state& s, std::size_t used, std::size_t more) {
    for (auto* b : {&s.indices, &s.values}) {
      if (b->size() >= used + more) continue;
      buffer<std::uint32_t> larger(std::max(used + more, 2 * b->size()));
      std::copy_n(b->data(), used, larger.data());
      *b = std::move(larger);
    }
  }
  /// Appends what a bin sends; returns its largest |G|.
  static float find(float const* g, float const* sum, std::size_t at, std::size_t stop, state& s, std::size_t& found) {
    using namespace simd::baseline;
    static_assert(lanes == 4);
    f32s most{};
    std::size_t i = at;
    for (; i + 4 <= stop; i += 4) most = simd::baseline::max(most, simd::baseline::abs(load(sum + i)));
    float largest = std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
    for (; i < stop; ++i) largest = std::max(largest, std::fabs(sum[i]));
    if (largest <= 0) return 0;

    auto const least = std::bit_cast<std::int32_t>(largest);
    auto const take = [&](std::size_t index) {
      if (std::fabs(sum[index]) <= 0) return;  // it has no sign
      s.indices[found] = static_cast<std::uint32_t>(index);
      s.values[found++] = std::bit_cast<std::uint32_t>(sum[index]);
    };
    for (i = at; i + 16 <= stop; i += 16) {
      unsigned hits = 0;
      for (std::size_t j = 0; j < 16; j += 4) {
        f32s const ahead = load(sum + i + j) + load(g + i + j);
        hits |= mask_of((bits_of(ahead) & 0x7fffffff) >= least) << j;
      }
      for (; hits; hits &= hits - 1) take(i + static_cast<std::size_t>(std::countr_zero(hits)));
    }
    for (; i < stop; ++i)
      if ((std::bit_cast<std::int32_t>(sum[i] + g[i]) & 0x7fffffff) >= least) take(i);
    return largest;
  }
  /// The residual is as it was, but for 0 where the sum with it has overflowed.
  DOVETAIL_COLD std::size_t send_non_finite(bucket const& b, state& s, std::span<std::byte> out) const {
    for (std::size_t i = 0; i < b.size(); ++i)
      if (is_finite(b.values[i]) && !is_finite(s.before[i])) s.residual[i] = 0;
    return detail::write_non_finite(out.data());
  }
};

}  // namespace dovetail::compress
