// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/comm/operation.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>

/// How one bucket's payloads travel. The codec's algebra says which exchanges are legal; bytes decide among them.
namespace dovetail::sync::exchange {

/// The cheapest legal exchange in bytes for the real number of ranks; of two equal ones the one that encodes once.
struct automatic {};
/// Payloads are added on the wire: one all-reduce of `wire_type` a round. Needs a summable codec.
struct sum {};
/// Each rank encodes every shard, owners decode, add and encode the sum again, all gather: bytes as of a dense ring
/// divided by the codec's ratio, at the price of a second loss. Needs payloads of fixed size.
struct two_phase {};
/// Every rank gets every payload and adds them in rank order: one loss, (P-1) payloads on the wire. Always legal.
struct gather {};

/// The choice that was made, as a value.
enum class plan : std::uint8_t { sum, two_phase, gather };

constexpr char const* name_of(plan p) { return p == plan::sum ? "sum" : p == plan::two_phase ? "two_phase" : "gather"; }

template <class Codec>
inline constexpr bool sum_is_legal = Codec::summable;
template <class Codec>
inline constexpr bool two_phase_is_legal = !Codec::summable && Codec::fixed_size;

/// What one bucket costs rank `rank` of `ranks` under plan `p`, in bytes: equal to what the communicator counts. For
/// codecs of variable size it is an upper bound. The values are not read.
template <class Codec>
constexpr comm::traffic cost(plan p, Codec const& codec, compress::bucket const& b, int ranks, int rank) {
  auto const others = static_cast<std::uint64_t>(ranks - 1);
  std::uint64_t bytes = 0, operations = 1;
  if (ranks == 1 || b.size() == 0) return {};
  if (p == plan::sum) {
    if constexpr (sum_is_legal<Codec>) {
      constexpr std::size_t element = sizeof(typename Codec::wire_type);
      operations = static_cast<std::uint64_t>(compress::rounds_of<Codec>);
      for (int round = 0; round < compress::rounds_of<Codec>; ++round) {
        std::uint64_t const total = compress::wire_size(codec, b, round);
        bytes += total + (others - 1) * dovetail::shard(total / element, ranks, rank).size() * element;
      }
    }
  } else if (p == plan::two_phase) {
    bytes = 2 * others * codec.wire_size(dovetail::shard(b.size(), ranks, 0).size());
    operations = 2;
  } else {
    bytes = others * compress::wire_size(codec, b);
  }
  return {bytes, bytes, operations};
}

/// The plan that `Wish` means for a bucket among `ranks` ranks.
template <class Wish, class Codec>
constexpr plan choose(Codec const& codec, compress::bucket const& b, int ranks) {
  if constexpr (std::is_same_v<Wish, sum>)
    return plan::sum;
  else if constexpr (std::is_same_v<Wish, two_phase>)
    return plan::two_phase;
  else if constexpr (std::is_same_v<Wish, gather>)
    return plan::gather;
  else if constexpr (sum_is_legal<Codec>)
    return plan::sum;
  else if constexpr (two_phase_is_legal<Codec>)
    return cost(plan::two_phase, codec, b, ranks, 0).bytes_sent < cost(plan::gather, codec, b, ranks, 0).bytes_sent
               ? plan::two_phase
               : plan::gather;
  else
    return plan::gather;
}

/// Refuses a wish that the codec's algebra forbids.
template <class Wish, class Codec>
constexpr void check_legal() {
  if constexpr (std::is_same_v<Wish, sum>)
    DOVETAIL_REQUIRE(sum_is_legal<Codec>,
                     "is not summable: use sync::exchange::gather, or leave the choice to sync::exchange::automatic",
                     Codec);
  if constexpr (std::is_same_v<Wish, two_phase>)
    DOVETAIL_REQUIRE(two_phase_is_legal<Codec>,
                     "cannot be exchanged in two phases: summable codecs use sync::exchange::sum, those of variable "
                     "size sync::exchange::gather",
                     Codec);
}

}  // namespace dovetail::sync::exchange
