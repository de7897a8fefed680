// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
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
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

namespace detail {
template <class Codec>
concept has_ratio = requires(Codec& c, float r) {
  c.ratio = r;
};
/// The ratio of a sparsifier, or of the one that a codec is around.
template <class Codec>
constexpr float* ratio_in(Codec& c) {
  if constexpr (has_ratio<Codec>)
    return &c.ratio;
  else if constexpr (requires { c.codec; })
    return ratio_in(c.codec);
  else
    return nullptr;
}
template <class Codec>
inline constexpr bool is_sparsifier = [] {
  if constexpr (has_ratio<Codec>)
    return true;
  else if constexpr (requires(Codec & c) { c.codec; })
    return is_sparsifier<std::remove_cvref_t<decltype(std::declval<Codec&>().codec)>>;
  else
    return false;
}();
}  // namespace detail

/// A sparsifier that sends more while gradients change, and less while they are the same: a bucket's ratio is `gentle`
/// in a window of `window` steps if it was so different before, and the codec's own otherwise.
///
///     compress::adaptive_ratio{compress::error_feedback{compress::top_k{.ratio = 0.01f}}, 0.1f, 500, 0.5f}
///
/// At the end of a window, G being the sum over its steps of what the ranks' payloads decoded to,
///   gentle next  <=>  | |G| − |G_before| | > change · |G_before|,  or the learning rate fell by more than that share.
/// The first two windows are gentle: there is nothing to compare with. Sums of decoded gradients are the same on all
/// ranks, and so is what is decided. Of a single step's they would say little, for what error feedback sends late comes
/// in larger pieces; over a window of more steps than 1 / ratio they are what the gradients were. A skipped step counts
/// for nothing.
///
/// A payload is the codec's own; its largest size is that of `gentle`. Other than a fixed ratio it can only be
/// gathered, or summed on the wire where the codec can: in two phases a rank sees its own shards. State: a float an
/// element, the payloads of a step, and the codec's own.
///
/// Errors: argument_error for a `gentle` below the codec's ratio, and for a state that was made for another bucket; and
/// what the codec refuses.
///
/// Source: Agarwal, Wang, Lee, Venkataraman, Papailiopoulos, "Accordion: Adaptive Gradient Communication via Critical
/// Learning Regime Identification", MLSys 2021, algorithm 1 (by bucket where theirs is by layer; their window is an
/// epoch or more).
template <class Codec>
struct adaptive_ratio {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  DOVETAIL_REQUIRE(detail::is_sparsifier<Codec>,
                   "has no `float ratio`, nor has a codec in it: compress::adaptive_ratio is around sparsifiers",
                   Codec);
  DOVETAIL_REQUIRE((rounds_of<Codec> == 1 && !codec_traits<Codec>::decodes_with_state),
                   "compress::adaptive_ratio is around codecs of one round that keep nothing of what they decode",
                   Codec);
  Codec codec{};
  float gentle = 0.1f;        ///< ratio while gradients change
  std::int64_t window = 500;  ///< steps
  float change = 0.5f;        ///< share of |G_before|
  static constexpr auto describe() {
    return policy{"adaptive_ratio", field{"codec", &adaptive_ratio::codec},
                  field{"gentle", &adaptive_ratio::gentle, ranges::positive_unit},
                  field{"window", &adaptive_ratio::window, ranges::count},
                  field{"change", &adaptive_ratio::change, ranges::not_negative}};
  }
  void check() const {
    Codec const own = codec;
    require(ratio_of(own) <= gentle, "adaptive_ratio: the gentle ratio is ", gentle, ", below that of ", name_of(codec),
            ", which is ", ratio_of(own), ": it sends more, not less");
  }

  static constexpr bool summable = codec_traits<Codec>::summable;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = codec_traits<Codec>::unbiased;
  static constexpr bool wants_error_feedback = codec_traits<Codec>::wants_error_feedback;
  using wire_type = wire_type_of<Codec>;

  struct received {
    std::vector<std::byte> payload;
    context where;
  };
  struct state {
    revocable<Codec> inner;
    buffer<float> total;           ///< of the window: G
    std::int64_t steps = 0;        ///< in it
    std::int64_t strong = 0;       ///< 1 if the ratio is the codec's own
    double before = 0;             ///< |G_before|
    float rate = 0;                ///< at the end of the window before
    std::vector<received> last{};  ///< this step's payloads: no part of the value, nor are:
    std::size_t count = 0;
    float rate_now = 0;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      auto all = inner.state().tensors(prefix + "inner.");
      all.push_back(make_named_tensor(prefix + "total", total.span()));
      all.push_back(make_named_count(prefix + "steps", steps));
      all.push_back(make_named_count(prefix + "strong", strong));
      all.push_back(make_named_tensor(prefix + "before", before));
      all.push_back(make_named_tensor(prefix + "rate", rate));
      return all;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.inner == b.inner && a.total == b.total && a.steps == b.steps && a.strong == b.strong &&
             !(a.before < b.before) && !(b.before < a.before) && !(a.rate < b.rate) && !(b.rate < a.rate);
    }
  };

  std::string name() const { return "adaptive " + name_of(codec); }
  constexpr std::size_t wire_size(std::size_t n) const {
    return std::max(codec.wire_size(n), with_ratio(gentle).wire_size(n));
  }
  constexpr std::size_t wire_size(bucket const& b) const {
    return std::max<std::size_t>(compress::wire_size(codec, b), compress::wire_size(with_ratio(gentle), b));
  }
  state init(bucket const& b, context const& where = {}) const {
    check_policy(*this);
    return {.inner = revocable<Codec>(compress::init(with_ratio(gentle), b, where)), .total = buffer<float>(b.size())};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require(s.total.size() == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ",
            s.total.size(), ": make one state per bucket with init");
    require_room(name(), b.size(), wire_size(b), out);
    commit(s);
    auto const now = current(s);
    s.inner.begin(now);
    s.rate_now = where.rate;
    return compress::encode(now, b, s.inner.state(), out, where);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    require(s.total.size() == out.size(), name(), ": ", out.size(), " elements meet a state made for ", s.total.size(),
            ": make one state per bucket with init");
    compress::decode_add(current(s), payload, out, weight, s.inner.state(), where);
    if (where.first) s.count = 0;
    if (s.last.size() == s.count) s.last.emplace_back();
    auto& r = s.last[s.count++];
    r.payload.assign(payload.begin(), payload.end());
    r.where = where;
  }
  void commit(state& s) const {
    auto const now = current(s);
    s.inner.commit(now);
    if (s.count == 0) return;
    for (auto const& r : std::span(s.last).first(s.count))
      compress::decode_add(now, std::span<std::byte const>(r.payload), s.total.span(), 1.0f, s.inner.state(), r.where);
    s.count = 0;
    if (++s.steps >= window) decide(s);
  }
  void rollback(state& s) const {
    s.inner.rollback(current(s));
    s.count = 0;
  }

 private:
  static float ratio_of(Codec c) { return *detail::ratio_in(c); }
  constexpr Codec with_ratio(float r) const {
    Codec c = codec;
    *detail::ratio_in(c) = r;
    return c;
  }
  Codec current(state const& s) const { return s.strong ? codec : with_ratio(gentle); }
  /// Behind the first window |G_before| is 0, and everything a change.
  void decide(state& s) const {
    double squares = 0;
    for (float const x : s.total.span()) squares += static_cast<double>(x) * static_cast<double>(x);
    double const norm = std::sqrt(squares), share = static_cast<double>(change);
    bool const same = is_finite(norm) && is_finite(s.before) && std::fabs(norm - s.before) <= share * s.before &&
                      static_cast<double>(s.rate_now) >= (1 - share) * static_cast<double>(s.rate);
    s.strong = same ? 1 : 0;
    s.before = norm;
    s.rate = s.rate_now;
    s.steps = 0;
    std::fill(s.total.begin(), s.total.end(), 0.0f);
  }
};

template <class Codec, class... Options>
adaptive_ratio(Codec, Options...) -> adaptive_ratio<Codec>;

}  // namespace dovetail::compress
