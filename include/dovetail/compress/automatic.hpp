// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>

namespace dovetail::compress {

/// How compress::automatic measures.
struct automatic_options {
  int trials = 3;               ///< of each candidate, whose median counts; one more warms up
  float margin = 0.1f;          ///< the share by which another one has to be faster to take its place
  std::int64_t every = 0;       ///< steps between two measurements; 0: once
  std::ostream* log = nullptr;  ///< rank 0's; written to by the thread that exchanges. Null: nothing is written
  static constexpr auto describe() {
    return policy{"automatic", field{"trials", &automatic_options::trials, ranges::count},
                  field{"margin", &automatic_options::margin, ranges::share},
                  field{"every", &automatic_options::every, ranges::not_negative}};
  }
};

/// Of several codecs, the one with which a bucket is exchanged soonest on this machine and this link; none where dense
/// gradients are as fast.
///
///     sync::all_reduce{compress::automatic{compress::bf16{}, compress::int8{},
///                                          compress::error_feedback{compress::top_k{.ratio = 0.01f}}}}
///
/// Each bucket decides by itself in its first step: it is exchanged by each candidate, and dense, with this step's
/// gradients; the times are compared as the slowest rank has them, so all ranks decide alike. What codecs had made of
/// it is taken back: the step's own exchange is that of the one decided for. A step that is skipped decides nothing. It
/// is measured and not modelled: encoding, the wire with what else is on it, decoding, and the cores that backward
/// computes on meanwhile. A candidate has to be faster by options.margin than what is used, dense gradients at first.
///
/// The measuring step sends trials + 1 exchanges of every candidate besides, which sync::all_reduce::predict does not
/// count. With options.every it is measured again. A candidate that is no longer used keeps its residual until its next
/// turn. All candidates' states are kept and saved with the session, so that a run that is resumed decides as before.
/// options.log is told times, bytes and reasons: for each candidate the break-even bandwidth too, above which its codec
/// costs more time than it saves on the wire.
///
/// By itself, outside of a synchronizer's exchange, it is compress::identity: a codec cannot measure a link.
///
/// Errors: argument_error for fewer than one trial, a margin outside [0, 1), or negative steps.
template <class... Candidates>
struct automatic {
  static_assert((detail::must_be_a_codec<Candidates>::holds && ...));
  DOVETAIL_REQUIRE(
      (!codec_traits<Candidates>::wants_error_feedback && ...),
      "one of compress::automatic's candidates wants error feedback: write compress::error_feedback{codec}, "
      "or compress::without_feedback{codec} if that is meant",
      automatic);
  automatic_options options{};
  std::tuple<Candidates...> candidates;

  explicit automatic(Candidates... c) : candidates(std::move(c)...) {}
  automatic(automatic_options const& o, Candidates... c) : options(o), candidates(std::move(c)...) {}

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = (codec_traits<Candidates>::unbiased && ...);
  static constexpr bool wants_error_feedback = false;

  std::string name() const {
    return std::apply(
        [](auto const&... c) {
          std::string all = "automatic: dense";
          ((all += ", " + name_of(c)), ...);
          return all;
        },
        candidates);
  }
  constexpr std::size_t wire_size(std::size_t n) const { return 4 * n; }
  no_state init(bucket const&) const {
    check_policy(options);
    return {};
  }
  /// With the context, so that sessions save the step that candidates encode by.
  std::size_t encode(bucket const& b, no_state& s, std::span<std::byte> out, context const&) const {
    return identity{}.encode(b, s, out);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    identity{}.decode_add(payload, out, weight);
  }
};

template <class... Candidates>
automatic(automatic_options, Candidates...) -> automatic<Candidates...>;

}  // namespace dovetail::compress
