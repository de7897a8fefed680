// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// One codec for the first steps of a training, another one from then on: gradients of the beginning are large and
/// change fast, and are worth their bytes.
///
///     sync::all_reduce{compress::after{500, compress::identity{}, compress::error_feedback{compress::sign{}}}}
///
/// Counts the session's steps, skipped ones too. sync::all_reduce exchanges each part as that codec is exchanged alone;
/// what the second one keeps begins at its first step. Its own members are for other uses: a payload is that of the
/// codec of its step.
///
/// Errors: argument_error for a negative number of steps.
template <class First, class Then>
struct after {
  static_assert(detail::must_be_a_codec<First>::holds && detail::must_be_a_codec<Then>::holds);
  DOVETAIL_REQUIRE(rounds_of<First> == 1 && rounds_of<Then> == 1, "compress::after takes codecs of one round", Then);
  std::int64_t steps = 0;  ///< of the first codec
  First first{};           ///< the codec of these steps
  Then then{};             ///< the codec from then on

  static constexpr auto describe() {
    return policy{"after", field{"steps", &after::steps, ranges::not_negative}, field{"first", &after::first},
                  field{"then", &after::then}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = First::unbiased && Then::unbiased;
  static constexpr bool wants_error_feedback = First::wants_error_feedback || Then::wants_error_feedback;

  struct state {
    revocable<First> first;
    revocable<Then> then;
    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      auto all = first.state().tensors(prefix + "first.");
      for (auto& t : then.state().tensors(prefix + "then.")) all.push_back(std::move(t));
      return all;
    }
    friend bool operator==(state const&, state const&) = default;
  };

  /// Whether a step is one of the first codec's.
  bool is_first(std::int64_t step) const { return step < steps; }
  std::string name() const { return message(name_of(first), ", after ", steps, " steps ", name_of(then)); }
  constexpr std::size_t wire_size(std::size_t n) const { return std::max(first.wire_size(n), then.wire_size(n)); }
  constexpr std::size_t wire_size(bucket const& b) const {
    return std::max<std::size_t>(compress::wire_size(first, b), compress::wire_size(then, b));
  }
  state init(bucket const& b, context const& where = {}) const {
    check_policy(*this);
    return {revocable<First>(compress::init(first, b, where)), revocable<Then>(compress::init(then, b, where))};
  }
  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require_room(name(), b.size(), wire_size(b), out);  // of either: a buffer fits in every step, or in none
    s.first.begin(first);
    s.then.begin(then);
    return is_first(where.step) ? compress::encode(first, b, s.first.state(), out, where)
                                : compress::encode(then, b, s.then.state(), out, where);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    s.first.open(first);
    s.then.open(then);
    if (is_first(where.step))
      compress::decode_add(first, payload, out, weight, s.first.state(), where);
    else
      compress::decode_add(then, payload, out, weight, s.then.state(), where);
  }
  void commit(state& s) const {
    s.first.commit(first);
    s.then.commit(then);
  }
  void rollback(state& s) const {
    s.first.rollback(first);
    s.then.rollback(then);
  }
};

template <class Steps, class First, class Then>
after(Steps, First, Then) -> after<First, Then>;

}  // namespace dovetail::compress
