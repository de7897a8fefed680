// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/topology.hpp>

namespace dovetail::comm {

/// Several hosts whose ranks follow one another, as launchers place them unless they are told otherwise: a sum in rank
/// order then goes through each host once. The first `lanes` ranks of every host, as many as the smallest has, speak
/// with their like on the hosts beside theirs.
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
  int first(int h) const { return firsts[static_cast<std::size_t>(h)]; }
  int ranks_on(int h) const { return first(h + 1) - first(h); }
  int most_on_a_host() const {
    int most = 0;
    for (int h = 0; h < hosts(); ++h) most = std::max(most, ranks_on(h));
    return most;
  }
  int here() const { return ranks_on(host); }
  int place() const { return rank - first(host); }
  bool is_first_host() const { return host == 0; }
  bool is_last_host() const { return host + 1 == hosts(); }
  bool speaks() const { return place() < lanes; }

  /// Of the remote ranks before this host (0) or after it (1), those whose parts of a gathered array come to the rank
  /// at place p, which hands them to its host: [begin, end).
  range brought_by(int h, bool after, int p) const {
    int const from = after ? first(h + 1) : 0, n = (after ? firsts.back() : first(h)) - from;
    auto const s = shard(static_cast<std::size_t>(n), ranks_on(h), p);
    return {static_cast<std::size_t>(from) + s.begin, static_cast<std::size_t>(from) + s.end};
  }
  /// The rank of host h to which rank r of another one brings its part.
  int bearer(int h, int r) const {
    for (int p = 0; p < ranks_on(h); ++p) {
      auto const s = brought_by(h, r >= first(h), p);
      if (static_cast<std::size_t>(r) >= s.begin && static_cast<std::size_t>(r) < s.end) return first(h) + p;
    }
    return first(h);
  }

  /// Whether sums that leave a host do so as floats, to be rounded once, at their end.
  static bool widens(call const& c) {
    return c.how == reduction::sum && (c.type == dtype::f16 || c.type == dtype::bf16);
  }
  /// Whether a reduction goes from host to host. A rank alone on each of several hosts has less to send to everybody
  /// at once, and so has one of two whose halves would travel as floats.
  bool is_for(call const& c) const { return most_on_a_host() > 1 || (hosts() == 2 && !widens(c)); }
  /// What this rank sends off its host in such a reduction, and of an array that every other host gets once.
  std::uint64_t sent_by_reduction(call const& c) const {
    if (!speaks()) return 0;
    std::uint64_t const lane = c.shard_bytes(lanes, place()).size();
    return (is_last_host() ? 0 : widens(c) ? 2 * lane : lane) + (is_first_host() ? 0 : lane);
  }
  std::uint64_t sent_to_each_host(std::uint64_t bytes) const { return static_cast<std::uint64_t>(hosts() - 1) * bytes; }
};

}  // namespace dovetail::comm
