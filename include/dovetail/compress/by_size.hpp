// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// One codec for small tensors, another one for large ones: biases and norms are few bytes, and models are sensitive to
/// what they lose.
///
///     compress::by_size{16384, compress::identity{}, compress::error_feedback{compress::top_k{.ratio = 0.01f}}}
///
/// Tensors of a bucket with fewer than `elements` elements are a bucket of their own for `small`, the others (and what
/// is of no tensor) one for `large`, in their order; where an exchange cuts a tensor, its parts count as they are. A
/// payload is that of `small`, then that of `large`; where one of the codecs has no fixed size, the length of the first
/// (u64) stands before both. Summable if both are, of fixed size, with the same wire_type. State is the codecs' own,
/// and scratch memory of a float an element. A residual goes on with the same number of ranks only; another one is
/// refused.
///
/// Errors: argument_error for a state that was made for another bucket, and for negative `elements`; input_error for
/// payloads that are truncated or too long, and what the two codecs refuse.
template <class Small, class Large>
struct by_size {
  static_assert(detail::must_be_a_codec<Small>::holds && detail::must_be_a_codec<Large>::holds);
  DOVETAIL_REQUIRE(rounds_of<Small> == 1 && rounds_of<Large> == 1, "compress::by_size takes codecs of one round",
                   Large);
  std::int64_t elements = 16384;  ///< of the smallest large tensor: 64 KiB
  Small small{};                  ///< the codec of smaller tensors
  Large large{};                  ///< the codec of the others
  static constexpr auto describe() {
    return policy{"by_size", field{"elements", &by_size::elements, ranges::not_negative},
                  field{"small", &by_size::small}, field{"large", &by_size::large}};
  }

  static constexpr bool summable = codec_traits<Small>::summable && codec_traits<Large>::summable &&
                                   std::is_same_v<wire_type_of<Small>, wire_type_of<Large>> &&
                                   codec_traits<Small>::fixed_size && codec_traits<Large>::fixed_size;
  static constexpr bool fixed_size = codec_traits<Small>::fixed_size && codec_traits<Large>::fixed_size;
  static constexpr bool unbiased = codec_traits<Small>::unbiased && codec_traits<Large>::unbiased;
  static constexpr bool wants_error_feedback =
      codec_traits<Small>::wants_error_feedback || codec_traits<Large>::wants_error_feedback;
  using wire_type = std::conditional_t<summable, wire_type_of<Small>, void>;

  /// One of the two: which elements it has, and its codec's state.
  template <class Codec>
  struct half {
    std::vector<range> parts;            ///< of the bucket, in order
    std::vector<bucket_tensor> tensors;  ///< as the codec sees them
    revocable<Codec> inner;
    buffer<float> values;  ///< scratch: its elements, one behind the other
    bucket as_bucket() const { return {values.span(), tensors}; }
  };
  struct state {
    half<Small> first;
    half<Large> second;
    bucket_layout layout;
    std::size_t size = 0;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all;
      auto const add = [&](std::vector<named_tensor> list) {
        for (auto& t : list) {
          // A sum over ranks is divided anew by the elements of the bucket, and these are not all of them.
          if (t.kind == state_kind::summed) t.kind = state_kind::own;
          all.push_back(std::move(t));
        }
      };
      add(first.inner.state().tensors(prefix + "small."));
      add(second.inner.state().tensors(prefix + "large."));
      return all;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.first.inner == b.first.inner && a.second.inner == b.second.inner && a.layout == b.layout &&
             a.size == b.size;
    }
  };

  std::string name() const { return message(name_of(small), " below ", elements, " elements, ", name_of(large)); }
  /// Of elements that may be of either: at most.
  constexpr std::size_t wire_size(std::size_t n) const { return header + small.wire_size(n) + large.wire_size(n); }
  std::size_t wire_size(bucket const& b) const {
    auto const cut = cut_of(b);
    return header + size_of(small, b, cut.first) + size_of(large, b, cut.second);
  }
  state init(bucket const& b, context const& where = {}) const {
    check_policy(*this);
    auto cut = cut_of(b);
    return {half_of(small, std::move(cut.first), of_small(where)), half_of(large, std::move(cut.second), where),
            bucket_layout(b), b.size()};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require(s.size == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
    s.layout.check(b, name());
    std::size_t const first = compress::wire_size(small, s.first.as_bucket()),
                      second = compress::wire_size(large, s.second.as_bucket());
    require_room(name(), b.size(), header + first + second, out);
    std::uint64_t const a = encode(small, b, s.first, out.subspan(header, first), of_small(where));
    std::size_t const c = encode(large, b, s.second, out.subspan(header + a, second), where);
    if constexpr (header > 0) std::memcpy(out.data(), &a, sizeof a);
    return header + a + c;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    require(s.size == out.size(), name(), ": ", out.size(), " elements meet a state made for ", s.size,
            ": make one state per bucket with init");
    std::uint64_t first = compress::wire_size(small, s.first.as_bucket());
    require<input_error>(payload.size() >= header, name(), ": a payload of ", payload.size(), " bytes is truncated");
    if constexpr (header > 0) std::memcpy(&first, payload.data(), sizeof first);
    auto const rest = payload.subspan(header);
    require<input_error>(first <= rest.size(), name(), ": a payload of ", payload.size(), " bytes, of which ", first,
                         " are of small tensors: it is truncated or damaged");
    // Both are decoded before anything is added.
    decode(small, rest.first(first), s.first, weight, of_small(where));
    decode(large, rest.subspan(first), s.second, weight, where);
    scatter(s.first, out);
    scatter(s.second, out);
  }
  void commit(state& s) const {
    s.first.inner.commit(small);
    s.second.inner.commit(large);
  }
  void rollback(state& s) const {
    s.first.inner.rollback(small);
    s.second.inner.rollback(large);
  }

 private:
  static constexpr std::size_t header = fixed_size ? 0 : sizeof(std::uint64_t);

  struct portion {
    std::vector<range> parts;
    std::vector<bucket_tensor> tensors;
    std::size_t size = 0;
    void add(range part, shape const* of) {
      if (part.empty()) return;
      if (of) tensors.push_back({size, *of});
      if (!parts.empty() && parts.back().end == part.begin)
        parts.back().end = part.end;
      else
        parts.push_back(part);
      size += part.size();
    }
  };
  std::pair<portion, portion> cut_of(bucket const& b) const {
    std::pair<portion, portion> both;
    std::size_t end = 0;
    require_in_order(name(), b);
    for (auto const& t : b.tensors) {
      auto const n = static_cast<std::size_t>(t.shape.size());
      both.second.add({end, t.begin}, nullptr);
      end = t.begin + n;
      (n < static_cast<std::size_t>(elements) ? both.first : both.second).add({t.begin, end}, &t.shape);
    }
    both.second.add({end, b.size()}, nullptr);
    return both;
  }
  template <class Codec>
  static std::size_t size_of(Codec const& codec, bucket const& b, portion const& c) {
    return compress::wire_size(codec, bucket{b.values.first(c.size), c.tensors});  // of the values the number counts
  }
  template <class Codec>
  static half<Codec> half_of(Codec const& codec, portion c, context const& where) {
    buffer<float> values(c.size);
    auto inner = compress::init(codec, bucket{values.span(), c.tensors}, part_of(where, c.parts));
    return {std::move(c.parts), std::move(c.tensors), revocable<Codec>(std::move(inner)), std::move(values)};
  }
  /// Random numbers go by the place of the first element.
  static context part_of(context where, std::vector<range> const& parts) {
    if (!parts.empty()) where.offset += parts.front().begin;
    return where;
  }
  /// Elements of one codec lie between those of the other: with one seed both would draw the same numbers.
  static context of_small(context where) {
    where.seed ^= 0x9E3779B97F4A7C15u;
    return where;
  }
  template <class Codec>
  std::size_t encode(Codec const& codec, bucket const& b, half<Codec>& h, std::span<std::byte> out,
                     context const& where) const {
    float* to = h.values.data();
    for (auto const& p : h.parts) to = std::copy_n(b.values.data() + p.begin, p.size(), to);
    h.inner.begin(codec);
    return compress::encode(codec, h.as_bucket(), h.inner.state(), out, part_of(where, h.parts));
  }
  template <class Codec>
  void decode(Codec const& codec, std::span<std::byte const> payload, half<Codec>& h, float weight,
              context const& where) const {
    std::fill(h.values.begin(), h.values.end(), 0.0f);
    h.inner.open(codec);
    compress::decode_add(codec, payload, h.values.span(), weight, h.inner.state(), part_of(where, h.parts));
  }
  template <class Codec>
  static void scatter(half<Codec> const& h, std::span<float> out) {
    float const* from = h.values.data();
    for (auto const& p : h.parts)
      for (float& x : out.subspan(p.begin, p.size())) x += *from++;
  }
};

template <class Elements, class Small, class Large>
by_size(Elements, Small, Large) -> by_size<Small, Large>;

}  // namespace dovetail::compress
