// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Error feedback that sends what has changed. Each rank keeps h, what the others know of its gradient g, and all keep
/// the sum H of the ranks' h:
///   payload = encode(g − h),  h = h + decode(payload),  H = H + the sum of what was decoded,  gradient = H.
///
/// Where gradients settle, g − h and what is lost go to 0, also where ranks have different data and their gradients do
/// not; the residuals of error_feedback do not go to 0 there. It begins at h = 0. Three floats an element, and the
/// codec's own.
///
/// Stochastic gradients never settle: the noise of the last ones stays in H. With `momentum` above 0 it is EF21-SGDM,
/// which sends the changes of v = momentum · v + (1 − momentum) · g instead, beginning at v = 0: two floats an element
/// more. The optimizer behind it needs no momentum of its own then.
///
/// A skipped step leaves h, H and v as they were. With another number of ranks H stays, and each rank's h becomes H
/// over their number; in two phases, where states are of shards, another number is refused.
///
/// Errors: argument_error for a state that was made for another bucket, and for a momentum outside [0, 1).
///
/// Source: Richtárik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error
/// Feedback", NeurIPS 2021, algorithm 2 (with the sum in place of the mean); momentum: Fatkhullin, Tyurin, Richtárik,
/// "Momentum Provably Improves Error Feedback!", NeurIPS 2023, algorithm 1.
template <class Codec>
struct ef21 {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  Codec codec;
  float momentum = 0;
  static constexpr auto describe() {
    return policy{"ef21", field{"codec", &ef21::codec}, field{"momentum", &ef21::momentum, ranges::share}};
  }

  DOVETAIL_REQUIRE(codec_traits<Codec>::contraction,
                   "EF21 needs a contraction, and the codec does not say `static constexpr bool contraction = true`",
                   Codec);
  DOVETAIL_REQUIRE(rounds_of<Codec> == 1 && !codec_traits<Codec>::decodes_with_state,
                   "EF21 is around codecs of one round that keep nothing of what they decode", Codec);
  static constexpr bool summable = false;  // a sum that is rounded on the wire is not what ranks know they have sent
  static constexpr bool fixed_size = Codec::fixed_size;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;

  struct state {
    buffer<float> own;      ///< h
    buffer<float> all;      ///< H
    buffer<float> next;     ///< H after this step; until the first payload is decoded, g − h
    buffer<float> average;  ///< v, and after this step; empty without momentum
    buffer<float> next_average;
    std::vector<std::byte> sent;  ///< what own lacks of this step
    context where{};              ///< in which it was encoded
    bool encoded = false, decoded = false;
    revocable<Codec> inner;
    bucket_layout layout;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> list{make_named_tensor(prefix + "own", own.span()),
                                     make_named_tensor(prefix + "all", all.span())};
      list[0].kind = state_kind::summed;
      if (!average.empty()) {
        list.push_back(make_named_tensor(prefix + "average", average.span()));
        list.back().kind = state_kind::summed;
      }
      for (auto& t : inner.state().tensors(prefix + "inner.")) list.push_back(std::move(t));
      return list;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.own == b.own && a.all == b.all && a.average == b.average && a.inner == b.inner && a.layout == b.layout;
    }
  };

  std::string name() const { return "EF21 + " + name_of(codec); }
  constexpr std::size_t wire_size(std::size_t n) const { return codec.wire_size(n); }
  constexpr std::size_t wire_size(bucket const& b) const { return compress::wire_size(codec, b); }
  state init(bucket const& b, context const& where = {}) const {
    check_policy(*this);
    std::size_t const n = b.size(), averaged = momentum > 0 ? n : 0;
    return {buffer<float>(n),
            buffer<float>(n),
            buffer<float>(n),
            buffer<float>(averaged),
            buffer<float>(averaged),
            {},
            {},
            false,
            false,
            revocable<Codec>(compress::init(codec, b, where)),
            bucket_layout(b)};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require(s.own.size() == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ",
            s.own.size(), ": make one state per bucket with init");
    s.layout.check(b, name());
    require_room(name(), b.size(), wire_size(b), out);
    commit(s);
    s.inner.begin(codec);
    auto const next = s.next.span();
    auto g = b.values;
    if (!s.average.empty()) {
      auto const v = s.next_average.span();
      for (std::size_t i = 0; i < v.size(); ++i)
        v[i] = rounded(momentum * s.average[i]) + rounded((1 - momentum) * g[i]);
      g = v;
    }
    for (std::size_t i = 0; i < next.size(); ++i) next[i] = g[i] - s.own[i];
    std::size_t const bytes = compress::encode(codec, bucket{next, b.tensors}, s.inner.state(), out, where);
    s.sent.assign(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(bytes));
    s.where = where;
    s.encoded = true;
    return bytes;
  }
  /// With the first payload comes what was known of all senders, with the last one the sum goes out.
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    require(s.all.size() == out.size(), name(), ": ", out.size(), " elements meet a state made for ", s.all.size(),
            ": make one state per bucket with init");
    auto const& kernel = kernels::best();
    auto const next = s.next.span();
    if (where.first) std::copy(s.all.begin(), s.all.end(), next.begin());
    compress::decode_add(codec, payload, next, 1.0f, s.inner.state(), where);
    s.decoded = true;
    if (where.last) kernel.add_float(reinterpret_cast<std::byte const*>(next.data()), next.size(), weight, out.data());
  }
  void commit(state& s) const {
    if (std::exchange(s.encoded, false)) {
      compress::decode_add(codec, std::span<std::byte const>(s.sent), s.own.span(), 1.0f, s.inner.state(), s.where);
      std::swap(s.average, s.next_average);
    }
    if (std::exchange(s.decoded, false)) std::swap(s.all, s.next);
    s.inner.commit(codec);
  }
  void rollback(state& s) const {
    s.encoded = s.decoded = false;
    s.inner.rollback(codec);
  }
};

template <class Codec, class... Momentum>
ef21(Codec, Momentum...) -> ef21<Codec>;

}  // namespace dovetail::compress
