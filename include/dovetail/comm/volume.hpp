// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/host_row.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/core/config.hpp>

// What communicators count of their own operations, before they run: the formulas of comm::traffic, in one place.
namespace dovetail::comm {

namespace detail {
/// Of bytes_to(r) for each other rank r, those that leave the host of `rank`. No hosts: all ranks are on one.
template <class F>
std::uint64_t bytes_off_host(topology const& hosts, int rank, F const& bytes_to) {
  std::uint64_t sum = 0;
  for (int r = 0; r < hosts.ranks(); ++r)
    if (!hosts.same_host(r, rank)) sum += bytes_to(r);
  return sum;
}
}  // namespace detail

/// What one call counts on rank `rank` of `ranks`. Of all_gather_v, whose parts differ, and of messages of any size
/// nothing is known before; barrier, split and shrink move nothing. `row`: collectives go from host to host.
DOVETAIL_NOINLINE inline traffic volume_of(call const& c, int ranks, int rank, topology const& hosts = {},
                                           host_row const* row = nullptr) {
  auto const p = static_cast<std::uint64_t>(ranks), others = p - 1;
  std::uint64_t const all = c.bytes();
  auto const shard_of = [&](int r) -> std::uint64_t { return c.shard_bytes(ranks, r).size(); };
  auto const off_host = [&](auto const& bytes_to) { return detail::bytes_off_host(hosts, rank, bytes_to); };
  bool const by_hosts = row && row->reduces(c), moves = row && row->moves(all);
  switch (c.op) {
    case operation::all_reduce: {
      auto const own = shard_of(rank), bytes = all - own + others * own;
      if (row && row->is_little(all)) return {bytes, bytes, 1, off_host([&](int) { return all; })};
      return {bytes, bytes, 1,
              by_hosts ? row->sent_by_reduction(c) : off_host([&](int r) { return shard_of(r) + own; })};
    }
    case operation::reduce_scatter:
      return {all - shard_of(rank), others * shard_of(rank), 1,
              by_hosts ? row->sent_by_reduction(c) : off_host(shard_of)};
    case operation::all_gather: {
      auto const own = shard_of(rank);
      return {others * own, all - own, 1, moves ? row->sent_to_each_host(own) : off_host([&](int) { return own; })};
    }
    case operation::all_to_all: {
      auto const chunk = all / p;
      return {all - chunk, all - chunk, 1, off_host([&](int) { return chunk; })};
    }
    case operation::broadcast:
      if (moves) return {rank == c.root ? others * all : 0, rank == c.root ? 0 : all, 1, row->sent_by_broadcast(c)};
      if (rank != c.root) return {0, all, 1};
      return {others * all, 0, 1, off_host([&](int) { return all; })};
    case operation::send:
      return {all, 0, 1, off_host([&](int r) { return r == c.root ? all : 0; })};
    case operation::recv:
      return {0, all, 1};
    case operation::all_gather_v:
    case operation::wait_message:
    case operation::barrier:
    case operation::split:
    case operation::shrink:
      break;
  }
  return {0, 0, 1};
}

}  // namespace dovetail::comm
