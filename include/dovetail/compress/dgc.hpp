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
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/entries.hpp>
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

/// Deep gradient compression: top-k of what has not been sent, which every rank accumulates with momentum.
///   g = gradient · min(1, clip / sqrt(ranks) / |gradient|)
///   u = momentum · u + g,  v = v + u          (nesterov: u = momentum · (u + g), v = v + u + g)
///   of each tensor the k = max(1, ceil(ratio · n)) largest |v| are sent, and u = v = 0 there.
///
/// Momentum is in here: the optimizer behind it is plain SGD. Tensors of at most one dimension (biases, norms) are sent
/// whole, with the same momentum: u, or u + g, and u stays. The norm that is clipped is that of the rank's bucket. In
/// the first `warmup` steps ratios are larger, 1/4, 1/16, 1/64 and 1/256 in a quarter of the steps each (rounded up,
/// the last has what is left), but where `ratio` is larger. State: u and v, four floats an element with the step that
/// can be taken back. It wants no error feedback.
///
/// A payload is the number of pieces that are whole (u32), the number k of other elements (u32), of each piece where it
/// begins (u32) and its length (u32), its elements (f32), then the k values (f32) and their indices
/// (compress/indices.hpp), the same on every processor. If the gradient or what is accumulated is not finite, the
/// payload is the number 2^32 − 1 alone, which decodes to NaN in every element. A gradient that is not finite leaves u
/// and v as they were; where they overflow they restart at 0, also when the step is taken back.
///
/// Errors: argument_error for hyperparameters out of range, more than 2^32 − 1 elements, or a state that was made for
/// another bucket; input_error for payloads that are truncated, too long, or damaged in numbers, pieces or indices.
///
/// Source: Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed
/// Training", ICLR 2018, algorithm 4 and section 3.
struct dgc {
  float ratio = 0.001f;
  float momentum = 0.9f;
  float clip = positive_infinity<float>();  ///< of the norm, as without compression; infinity: not at all
  std::int64_t warmup = 0;                  ///< steps in which more is sent
  bool nesterov = false;                    ///< whether momentum is Nesterov's
  static constexpr auto describe() {
    return policy{"dgc",
                  field{"ratio", &dgc::ratio, ranges::positive_unit},
                  field{"momentum", &dgc::momentum, ranges::share},
                  field{"clip", &dgc::clip, ranges::positive_or_infinite},
                  field{"warmup", &dgc::warmup, ranges::not_negative},
                  field{"nesterov", &dgc::nesterov}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = false;

  struct state {
    buffer<float> momentum, unsent;                ///< u, v
    buffer<float> momentum_before, unsent_before;  ///< the last encode: no part of the value
    bool open = false;                             ///< whether the last encode can be taken back
    bucket_layout layout;
    std::vector<detail::segment> segments;
    selection_scratch scratch;
    buffer<std::uint32_t> pairs;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "momentum", momentum.span()),
                                    make_named_tensor(prefix + "unsent", unsent.span())};
      for (auto& t : all) t.kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.momentum == b.momentum && a.unsent == b.unsent && a.layout == b.layout;
    }
  };

  static constexpr char const* name() { return "dgc"; }
  /// The part of the elements that is sent in this step.
  constexpr float density(std::int64_t step) const {
    if (step >= warmup) return ratio;
    float part = 0.25f;
    for (std::int64_t stage = step / ((warmup - 1) / 4 + 1); stage > 0; --stage) part *= 0.25f;
    return part > ratio ? part : ratio;
  }
  std::size_t wire_size(std::size_t n) const {
    check(n);
    if (n == 0) return 8;
    std::size_t const k = detail::kept(density(0), n);
    return 8 + 4 * k + indices_size_up_to(n, k);
  }
  std::size_t wire_size(bucket const& b) const {
    check(b.size());
    std::size_t whole = 0, pieces = 0, k = 0;
    for (auto const& s : detail::segments_of(name(), b)) {
      if (s.vector)
        ++pieces, whole += s.size();
      else
        k += detail::kept(density(0), s.size());
    }
    return 8 + 8 * pieces + 4 * (whole + k) + indices_size_up_to(b.size(), k);
  }
  state init(bucket const& b) const {
    check(b.size());
    std::size_t const n = b.size();
    return {buffer<float>(n),
            buffer<float>(n),
            buffer<float>(n),
            buffer<float>(n),
            false,
            bucket_layout(b),
            detail::segments_of(name(), b),
            {},
            {}};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    std::size_t const n = b.size();
    require(s.unsent.size() == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.unsent.size(),
            ": make one state per bucket with init");
    s.layout.check(b, name());
    require_room(name(), n, wire_size(b), out);
    s.open = false;
    auto const kernel = kernels::best();
    if (!kernel.all_finite(b.values.data(), n)) return detail::write_non_finite(out.data());
    accumulate(b.values, clipped(b.values, where.ranks), s);
    auto const u = s.momentum_before.span(), v = s.unsent_before.span();
    if (!kernel.all_finite(v.data(), n)) return restart(s, out);

    float const part = density(where.step);
    std::size_t pieces = 0, k = 0;
    for (auto const& piece : s.segments)
      pieces += piece.vector, k += piece.vector ? 0 : detail::kept(part, piece.size());
    detail::grow(s.pairs, 2 * k);
    detail::store_word(out.data(), static_cast<std::uint32_t>(pieces));
    detail::store_word(out.data() + 4, static_cast<std::uint32_t>(k));
    std::byte *table = out.data() + 8, *to = table + 8 * pieces;
    std::size_t found = 0;
    for (auto const& piece : s.segments) {
      auto const here = v.subspan(piece.begin, piece.size());
      if (piece.vector) {
        detail::store_word(table, static_cast<std::uint32_t>(piece.begin));
        detail::store_word(table + 4, static_cast<std::uint32_t>(piece.size()));
        table += 8;
        for (float& x : here) {
          detail::store_float(to, x);
          to += 4;
          x = 0;
        }
        continue;
      }
      std::size_t const some = detail::kept(part, piece.size());
      std::uint32_t* const pairs = s.pairs.data() + 2 * found;
      select_largest(here, nullptr, nullptr, some, s.scratch, reinterpret_cast<std::byte*>(pairs), kernel);
      for (std::size_t i = 0; i < some; ++i) {
        std::size_t const index = pairs[2 * i] + piece.begin;
        pairs[2 * i] = static_cast<std::uint32_t>(index);
        u[index] = v[index] = 0;
      }
      found += some;
    }
    to += detail::write_entries(s.pairs.data(), k, n, to);
    swap(s);
    s.open = true;
    return static_cast<std::size_t>(to - out.data());
  }
  void commit(state& s) const { s.open = false; }
  void rollback(state& s) const {
    if (std::exchange(s.open, false)) swap(s);
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const n = out.size();
    check(n);
    if (detail::is_non_finite(payload)) {
      for (float& v : out) v += not_a_number<float>();
      return;
    }
    require<input_error>(payload.size() >= 8, name(), ": a payload of ", payload.size(), " bytes for ", n,
                         " elements: it is truncated");
    std::size_t const pieces = detail::load_word<std::uint32_t>(payload.data());
    std::size_t const k = detail::load_word<std::uint32_t>(payload.data() + 4);
    auto rest = payload.subspan(8);
    require<input_error>(rest.size() / 8 >= pieces, name(), ": a payload of ", payload.size(), " bytes with ", pieces,
                         " pieces: it is truncated or damaged");
    auto const table = rest.first(8 * pieces);
    rest = rest.subspan(8 * pieces);
    std::size_t whole = 0, end = 0;
    for (std::size_t i = 0; i < pieces; ++i) {
      std::size_t const begin = word(table, 2 * i), size = word(table, 2 * i + 1);
      require<input_error>(begin >= end && begin + size <= n, name(), ": a piece of ", size, " elements at ", begin,
                           " behind ", end, " of ", n, ": the payload is damaged");
      end = begin + size;
      whole += size;
    }
    require<input_error>(rest.size() / 4 >= whole, name(), ": a payload of ", payload.size(), " bytes with ", whole,
                         " elements of whole pieces: it is truncated or damaged");
    std::byte const* from = rest.data();
    rest = rest.subspan(4 * whole);
    detail::check_entries(name(), rest, n, k);

    for (std::size_t i = 0; i < pieces; ++i)
      for (float& x : out.subspan(word(table, 2 * i), word(table, 2 * i + 1))) {
        x += rounded(weight * detail::load_float(from));
        from += 4;
      }
    detail::add_entries(name(), rest, k, out, weight);
  }

 private:
  void check(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
  }
  static std::size_t word(std::span<std::byte const> table, std::size_t i) {
    return detail::load_word<std::uint32_t>(table.data() + 4 * i);
  }
  static void swap(state& s) {
    std::swap(s.momentum, s.momentum_before);
    std::swap(s.unsent, s.unsent_before);
  }
  /// What the gradient is multiplied by: by the norm, so that its direction stays.
  float clipped(std::span<float const> g, int ranks) const {
    if (!is_finite(clip)) return 1;
    double sums[4] = {};
    for (std::size_t i = 0; i < g.size(); ++i) {
      double const x = static_cast<double>(g[i]);
      sums[i % 4] += x * x;
    }
    double const norm = std::sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
    double const limit = static_cast<double>(clip) / std::sqrt(static_cast<double>(ranks));
    return norm > limit ? static_cast<float>(limit / norm) : 1;
  }
  /// u and v of this step, in place of those of the step before the last.
  void accumulate(std::span<float const> gradient, float scale, state& s) const {
    using namespace simd::baseline;
    std::size_t const n = gradient.size();
    float const *const g = gradient.data(), *const u = s.momentum.data(), *const v = s.unsent.data();
    float *const next_u = s.momentum_before.data(), *const next_v = s.unsent_before.data();
    for (std::size_t i = 0; i < n; i += lanes) {
      std::size_t const some = std::min<std::size_t>(lanes, n - i);
      bool const full = some == static_cast<std::size_t>(lanes);
      f32s const here = hidden(scale * (full ? load(g + i) : load_part(g + i, some)));
      f32s const old = full ? load(u + i) : load_part(u + i, some);
      f32s const unsent = full ? load(v + i) : load_part(v + i, some);
      f32s const velocity = nesterov ? hidden(momentum * (old + here)) : hidden(momentum * old) + here;
      f32s const sum = unsent + (nesterov ? velocity + here : velocity);
      if (full) {
        store(next_u + i, velocity);
        store(next_v + i, sum);
      } else {
        store_part(next_u + i, some, velocity);
        store_part(next_v + i, some, sum);
      }
    }
  }
  /// What has overflowed begins again.
  DOVETAIL_COLD std::size_t restart(state& s, std::span<std::byte> out) const {
    for (std::size_t i = 0; i < s.unsent.size(); ++i)
      if (!is_finite(s.unsent_before[i])) s.momentum[i] = s.unsent[i] = 0;
    return detail::write_non_finite(out.data());
  }
};

}  // namespace dovetail::compress
