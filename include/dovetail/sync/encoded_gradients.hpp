// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/compress/traits.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/optim/decoded_gradients.hpp>
#include <dovetail/optim/optimizer_traits.hpp>

namespace dovetail::sync::detail {

/// What sync::exchange::fused leaves encoded until the optimizer's step; without it, nothing.
template <class Codec, bool Fused>
struct encoded_gradients {
  template <class Optimizer>
  static constexpr bool is_taken_by = true;
};

template <class Codec>
struct encoded_gradients<Codec, true> {
  using reader = decltype(compress::read(std::declval<Codec const&>(), std::span<std::byte const>{}, std::size_t{}));
  template <class Optimizer>
  static constexpr bool is_taken_by =
      optim::optimizer_traits<Optimizer>::template takes_source<optim::gradient::decoded<reader>>;
  std::vector<optim::gradient::encoded_part<reader>> all;

  /// Of one bucket's exchange, whose memory they stay in.
  template <class Exchange>
  void take(Exchange& exchange) {
    all.clear();
    exchange.received([&](range at, reader const& r) { all.push_back({exchange.part().begin + at.begin, r}); });
  }
  optim::gradient::decoded<reader> source() const { return {std::span(all)}; }
  /// Whether all sums of the flat range `part` are; as all_finite of what is decoded.
  bool all_finite(range part) const {
    using cursor = typename optim::gradient::decoded<reader>::cursor;
    static_assert(cursor::before + 1 == compress::payload_step);
    constexpr std::size_t window = 4096;
    float room[cursor::window_room];
    for (std::size_t at = part.begin; at < part.end; at += window) {
      std::size_t const n = std::min(window, part.end - at);
      if (!dovetail::all_finite(std::span<float const>(source().read(at, n, room), n))) return false;
    }
    return true;
  }
};

}  // namespace dovetail::sync::detail
