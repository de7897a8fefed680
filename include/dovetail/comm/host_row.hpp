// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <dovetail/comm/binomial.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/topology.hpp>

namespace dovetail::comm {

/// Several hosts whose ranks follow one another, as launchers place them unless they are told otherwise: a sum in rank
/// order then goes through each host once. The first `lanes` ranks of every host speak with their like on the hosts
/// beside theirs. Which operations go so, and what leaves a host then.
struct host_row {
  std::vector<int> firsts;  ///< the first rank of each host, and at the end the number of ranks
  int host = 0, rank = 0;   ///< whose view this is
  int lanes = 1;

  /// Nothing for one host, and where ranks of a host do not follow one another. Of lanes as many as the smallest host
  /// has ranks, but no more than that.
  static std::optional<host_row> of(topology const& t, int rank, int most_lanes) {
    if (t.hosts() < 2 || !std::is_sorted(t.host_of.begin(), t.host_of.end())) return std::nullopt;
    host_row row{{}, t.host(rank), rank, most_lanes};
    for (int h = 0; h < t.hosts(); ++h)
      row.firsts.push_back(static_cast<int>(std::find(t.host_of.begin(), t.host_of.end(), h) - t.host_of.begin()));
    row.firsts.push_back(t.ranks());
    for (int h = 0; h < t.hosts(); ++h) row.lanes = std::min(row.lanes, row.ranks_on(h));
    return row;
  }

  int hosts() const { return static_cast<int>(firsts.size()) - 1; }
  int ranks() const { return firsts.back(); }
  int first(int h) const { return firsts[static_cast<std::size_t>(h)]; }
  int ranks_on(int h) const { return first(h + 1) - first(h); }
  int host_of(int r) const {
    return static_cast<int>(std::upper_bound(firsts.begin(), firsts.end(), r) - firsts.begin()) - 1;
  }
  int here() const { return ranks_on(host); }
  int place() const { return rank - first(host); }
  bool speaks() const { return place() < lanes; }
  int most_on_a_host() const {
    int most = 0;
    for (int h = 0; h < hosts(); ++h) most = std::max(most, ranks_on(h));
    return most;
  }

  /// Of the remote ranks before host h, or after it, those whose parts of a gathered array come to its rank at place p,
  /// which hands them to the others: [begin, end).
  range brought_by(int h, bool after, int p) const {
    int const from = after ? first(h + 1) : 0, n = (after ? ranks() : first(h)) - from;
    auto const s = shard(static_cast<std::size_t>(n), ranks_on(h), p);
    return {static_cast<std::size_t>(from) + s.begin, static_cast<std::size_t>(from) + s.end};
  }
  /// The rank of host h to which rank r of another one brings its part.
  int bearer(int h, int r) const {
    int p = 0;
    while (static_cast<std::size_t>(r) >= brought_by(h, r >= first(h), p).end) ++p;
    return first(h) + p;
  }
  /// Who speaks for host h in a broadcast.
  int speaker(int h, int root) const { return h == host_of(root) ? root : first(h); }

  /// Sent to everybody at once, which takes less time than a few messages one after the other: so much always, and more
  /// while all of it together is not much for a link.
  static constexpr std::size_t little_bytes = 4096;
  bool is_little(std::size_t bytes) const {
    return bytes <= little_bytes ||
           bytes * static_cast<std::size_t>(most_on_a_host() * (ranks() - 1)) <= std::size_t{64} * 1024;
  }
  /// Whether an array goes to each host once: all_gather, all_gather_v, broadcast.
  bool moves(std::size_t bytes) const { return !is_little(bytes) && most_on_a_host() > 1; }
  /// Whether a reduction goes from host to host: where no host sends more than it would to everybody.
  bool reduces(call const& c) const {
    if (is_little(c.bytes())) return false;
    std::int64_t line = widens(c) ? 2 : 1, direct = 0;
    if (hosts() > 2) ++line;  // those in the middle send the results back, too
    for (int h = 0; h < hosts(); ++h) direct = std::max(direct, std::int64_t{ranks_on(h)} * (ranks() - ranks_on(h)));
    return line * ranks() <= (c.op == operation::all_reduce ? 2 : 1) * direct;
  }
  /// Whether sums travel as floats, to be rounded once, at their end.
  static bool widens(call const& c) {
    return c.how == reduction::sum && (c.type == dtype::f16 || c.type == dtype::bf16);
  }
  /// Of the result of a reduction the hosts before host h want the beginning.
  std::size_t wanted_before(int h, call const& c) const {
    if (c.op == operation::all_reduce || h == 0) return h == 0 ? 0 : c.bytes();
    return c.shard_bytes(ranks(), first(h) - 1).end;
  }

  /// What this rank sends off its host: in a reduction that goes from host to host, of an array that every other host
  /// gets once, in a broadcast.
  std::uint64_t sent_by_reduction(call const& c) const {
    if (!speaks()) return 0;
    auto const lane = c.shard_bytes(lanes, place());
    auto const wanted = std::clamp(wanted_before(host, c), lane.begin, lane.end) - lane.begin;
    return (host + 1 == hosts() ? 0 : lane.size() * (widens(c) ? 2 : 1)) + wanted;
  }
  std::uint64_t sent_to_each_host(std::uint64_t bytes) const { return static_cast<std::uint64_t>(hosts() - 1) * bytes; }
  std::uint64_t sent_by_broadcast(call const& c) const {
    if (rank != speaker(host, c.root)) return 0;
    std::uint64_t sent = 0;
    detail::binomial_children((host - host_of(c.root) + hosts()) % hosts(), hosts(), [&](int) { sent += c.bytes(); });
    return sent;
  }
};

}  // namespace dovetail::comm
