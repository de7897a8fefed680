// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/comm/binomial.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/compress/after.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>

/// How one bucket's payloads travel. The codec's algebra says which exchanges are legal; bytes decide among them.
namespace dovetail::sync::exchange {

/// The cheapest legal exchange in bytes for the real number of ranks; of two equal ones the one that encodes once.
struct automatic {};
/// Payloads are added on the wire: one all-reduce of `wire_type` a round. Needs a summable codec.
struct all_reduce {};
/// Each rank encodes every shard, owners decode, add and encode the sum again, all gather: bytes as of a dense ring
/// divided by the codec's ratio, at the price of a second loss. Needs payloads of fixed size.
struct reduce_scatter_all_gather {};
/// Every rank gets every payload and adds them in rank order: one loss, (P-1) payloads on the wire. Always legal, but
/// for codecs of several rounds.
struct all_gather {};
/// Payloads are merged up a binomial tree of ranks, and what is left goes down again (gTop-k): each merge adds up two
/// of them and keeps as many of the largest entries as a payload has, so no rank moves more than log2(P) payloads each
/// way, and what is decoded has no more entries than one rank sends. Whatever did not come through goes back to the
/// residual of the ranks that sent it. Needs a codec with entries (compress/traits.hpp). It loses more than
/// all_gather, so it is never chosen but by name.
struct merge_tree {};

/// As Wish, but the optimizer decodes what comes last: decode, average and step are one pass over memory, and the sum
/// is never written to it. Behind a step the list's gradients are those of the rank itself. Needs a codec whose
/// payloads can be read in parts (compress::codec_traits::reads_parts) and an optimizer that takes gradient sources.
template <class Wish = automatic>
struct fused {};
template <class Wish>
inline constexpr bool is_fused = false;
template <class Wish>
inline constexpr bool is_fused<fused<Wish>> = true;

/// Gradients are added up inside of each host as they are, and only what crosses between hosts is encoded: one payload
/// of a host's sum, exchanged as Wish says among the hosts, and the decoded sum goes to all ranks of each. Buckets take
/// turns among as many ranks of a host as the smallest host has. On one host nothing is encoded; with one rank on each
/// it is Wish. Any codec that Wish takes. For sync::all_reduce. (Jiang, Zhu, Lan, Yi, Cui & Guo, A Unified Architecture
/// for Accelerating Distributed DNN Training in Heterogeneous GPU/CPU Clusters, OSDI 2020, section 4; Gan et al.,
/// Bagua: Scaling up Distributed Learning with System Relaxations, PVLDB 15 (2021).)
template <class Wish = automatic>
struct hierarchical {};
template <class Wish>
inline constexpr bool is_hierarchical = false;
template <class Wish>
inline constexpr bool is_hierarchical<hierarchical<Wish>> = true;

/// The choice that was made, as a value.
enum class plan : std::uint8_t { all_reduce, reduce_scatter_all_gather, all_gather, merge_tree };

constexpr char const* name_of(plan p) {
  constexpr char const* names[] = {"all_reduce", "reduce_scatter_all_gather", "all_gather", "merge_tree"};
  return names[static_cast<std::size_t>(p)];
}

template <class Codec>
inline constexpr bool all_reduce_is_legal = compress::codec_traits<Codec>::summable;
template <class Codec>
inline constexpr bool reduce_scatter_is_legal =
    !compress::codec_traits<Codec>::summable && compress::codec_traits<Codec>::fixed_size;
template <class Codec>
inline constexpr bool merge_is_legal = compress::codec_traits<Codec>::has_entries;

/// Of the way down the merge tree: of each entry that came through a bit that says whether the receiver's counts.
template <class Codec>
constexpr std::size_t merge_flags(Codec const& codec, std::size_t n) {
  return (codec.count(n) + 7) / 8;
}

/// Bytes of the longest payload of a shard: what each takes in two phases.
template <class Codec>
constexpr std::size_t shard_payload(Codec const& codec, compress::bucket const& b, int ranks) {
  using traits = compress::codec_traits<Codec>;
  if constexpr (!traits::sizes_buckets && !traits::sizes_rounds) {
    return codec.wire_size(dovetail::shard(b.size(), ranks, 0).size());  // the first is never shorter than another
  } else {
    std::size_t most = 0;
    for (int r = 0; r < ranks; ++r) {
      auto const part = dovetail::shard(b.size(), ranks, r);
      auto const tensors = compress::tensors_in(b.tensors, part);
      most = std::max<std::size_t>(
          most, compress::wire_size(codec, compress::bucket{b.values.subspan(part.begin, part.size()), tensors}));
    }
    return most;
  }
}

/// What one bucket costs rank `rank` of `ranks` under plan `p`, in bytes: equal to what the communicator counts. For
/// codecs of variable size it is an upper bound. The values are not read.
template <class Codec>
constexpr comm::traffic cost(plan p, Codec const& codec, compress::bucket const& b, int ranks, int rank,
                             std::int64_t /*step*/ = 0) {
  auto const others = static_cast<std::uint64_t>(ranks - 1);
  std::uint64_t bytes = 0, operations = 1;
  if (ranks == 1 || b.size() == 0) return {};
  if (p == plan::all_reduce) {
    if constexpr (all_reduce_is_legal<Codec>) {
      constexpr std::size_t element = sizeof(compress::wire_type_of<Codec>);
      operations = static_cast<std::uint64_t>(compress::rounds_of<Codec>);
      for (int round = 0; round < compress::rounds_of<Codec>; ++round) {
        std::uint64_t const total = compress::wire_size(codec, b, round);
        bytes += total + (others - 1) * dovetail::shard(total / element, ranks, rank).size() * element;
      }
    }
  } else if (p == plan::reduce_scatter_all_gather) {
    bytes = 2 * others * shard_payload(codec, b, ranks);
    operations = 2;
  } else if (p == plan::merge_tree) {
    if constexpr (merge_is_legal<Codec>) {
      std::uint64_t children = 0;
      comm::detail::binomial_children(rank, ranks, [&](int) { ++children; });
      std::uint64_t const parents = rank > 0;
      // A length goes before what has no fixed size.
      std::uint64_t const up = compress::wire_size(codec, b) + (compress::codec_traits<Codec>::fixed_size ? 0 : 8);
      std::uint64_t const down = up + merge_flags(codec, b.size());
      return {parents * up + children * down, children * up + parents * down,
              1 + (compress::codec_traits<Codec>::fixed_size ? 2 : 4) * (parents + children)};
    }
  } else {
    bytes = others * compress::wire_size(codec, b);
  }
  return {bytes, bytes, operations};
}

/// The plans of compress::after's two codecs, of which each may be such a one again.
template <class First, class Then>
struct plans {
  First first;
  Then then;
};

/// What one step costs of a codec that is another one after some steps.
template <class A, class B, class First, class Then>
constexpr comm::traffic cost(plans<A, B> const& p, compress::after<First, Then> const& codec, compress::bucket const& b,
                             int ranks, int rank, std::int64_t step = 0) {
  return codec.is_first(step) ? cost(p.first, codec.first, b, ranks, rank, step)
                              : cost(p.then, codec.then, b, ranks, rank, step);
}

namespace detail {
template <class Wish>
struct plain_wish {
  using type = Wish;
};
template <class Wish>
struct plain_wish<fused<Wish>> {
  using type = Wish;
};
template <class Wish>
struct plain_wish<hierarchical<Wish>> {
  using type = Wish;
};
}  // namespace detail

/// What is meant for those who exchange payloads: of hierarchical its Wish, of others they themselves.
template <class Wish>
using among_payloads =
    typename std::conditional_t<is_hierarchical<Wish>, detail::plain_wish<Wish>, std::type_identity<Wish>>::type;

/// The plan that `Wish` means for a bucket among `ranks` ranks.
template <class Wish, class Codec>
constexpr plan choose(Codec const& codec, compress::bucket const& b, int ranks) {
  if constexpr (is_fused<Wish> || is_hierarchical<Wish>)
    return choose<typename detail::plain_wish<Wish>::type>(codec, b, ranks);
  else if constexpr (std::is_same_v<Wish, all_reduce>)
    return plan::all_reduce;
  else if constexpr (std::is_same_v<Wish, reduce_scatter_all_gather>)
    return plan::reduce_scatter_all_gather;
  else if constexpr (std::is_same_v<Wish, all_gather>)
    return plan::all_gather;
  else if constexpr (std::is_same_v<Wish, merge_tree>)
    return plan::merge_tree;
  else if constexpr (all_reduce_is_legal<Codec>)
    return plan::all_reduce;
  else if constexpr (reduce_scatter_is_legal<Codec>)
    return cost(plan::reduce_scatter_all_gather, codec, b, ranks, 0).bytes_sent <
                   cost(plan::all_gather, codec, b, ranks, 0).bytes_sent
               ? plan::reduce_scatter_all_gather
               : plan::all_gather;
  else
    return plan::all_gather;
}

template <class Wish, class First, class Then>
constexpr auto choose(compress::after<First, Then> const& codec, compress::bucket const& b, int ranks) {
  auto const first = choose<Wish>(codec.first, b, ranks);
  auto const then = choose<Wish>(codec.then, b, ranks);
  return plans<std::remove_const_t<decltype(first)>, std::remove_const_t<decltype(then)>>{first, then};
}

/// Refuses a wish that a codec's algebra forbids.
template <class Wish, class Codec>
struct check_legal {
  DOVETAIL_REQUIRE((!std::is_same_v<Wish, all_reduce> || all_reduce_is_legal<Codec>),
                   "is not summable: use sync::exchange::all_gather, or leave the choice to sync::exchange::automatic",
                   Codec);
  DOVETAIL_REQUIRE(
      (!std::is_same_v<Wish, reduce_scatter_all_gather> || reduce_scatter_is_legal<Codec>),
      "cannot be exchanged in two phases: summable codecs use sync::exchange::all_reduce, those of variable "
      "size sync::exchange::all_gather",
      Codec);
  DOVETAIL_REQUIRE((!std::is_same_v<Wish, all_gather> || compress::rounds_of<Codec> == 1),
                   "has several rounds, which add up payloads: use sync::exchange::all_reduce", Codec);
  DOVETAIL_REQUIRE((!std::is_same_v<Wish, merge_tree> || merge_is_legal<Codec>),
                   "has no entries that can be merged (count, read_entries and write_entries of compress/traits.hpp): "
                   "use sync::exchange::all_gather, or leave the choice to sync::exchange::automatic",
                   Codec);
  static constexpr bool holds = true;
};
template <class Wish, class Codec>
struct check_legal<fused<Wish>, Codec> {
  DOVETAIL_REQUIRE(!is_hierarchical<Wish>,
                   "cannot be decoded by the step under sync::exchange::hierarchical, where most ranks get the sum and "
                   "no payloads: leave fused out",
                   Codec);
  DOVETAIL_REQUIRE(
      compress::codec_traits<Codec>::reads_parts,
      "cannot be decoded in parts, which sync::exchange::fused needs: compress::half, sign, integers, qsgd, "
      "terngrad and top_k can, also in error_feedback; leave fused out, or give the codec a `reader` (see "
      "compress/traits.hpp)",
      Codec);
  static constexpr bool holds = check_legal<Wish, Codec>::holds;
};
template <class Wish, class First, class Then>
struct check_legal<fused<Wish>, compress::after<First, Then>> {
  DOVETAIL_REQUIRE((std::is_void_v<First>),
                   "is exchanged by parts, which the optimizer cannot decode: leave sync::exchange::fused out",
                   compress::after<First, Then>);
  static constexpr bool holds = false;
};
template <class Codec>
inline constexpr bool decides_itself = false;  ///< compress::automatic
template <class Wish, class First, class Then>
struct check_legal<Wish, compress::after<First, Then>> {
  DOVETAIL_REQUIRE((!decides_itself<First> && !decides_itself<Then>),
                   "has compress::automatic in it, which decides in a bucket's first step: name "
                   "the codecs themselves",
                   compress::after<First, Then>);
  static constexpr bool holds = check_legal<Wish, First>::holds && check_legal<Wish, Then>::holds;
};

}  // namespace dovetail::sync::exchange
