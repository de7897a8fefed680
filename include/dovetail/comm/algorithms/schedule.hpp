// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What an algorithm gives: the messages and sums of one rank, as a value. From it alone come the execution
// (execution.hpp), the cost, and the proof that all ranks' schedules fit together, which needs no communication.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::comm {

/// Whose bytes: what a rank brings, what it gets, or memory of the execution. Of all_reduce, reduce_scatter and
/// broadcast `input` is `data`; of all_gather it is the own shard; of all_to_all it is as long as data.
enum class memory : std::uint8_t { input, data, scratch };

/// Bytes [begin, begin + size) of one of them.
struct region {
  memory where = memory::data;
  std::size_t begin = 0, size = 0;
  friend constexpr bool operator==(region const&, region const&) = default;
};

struct transfer {
  int peer = 0;
  region what;
};

/// `to` becomes the reduction of the sources in this order, or, of one source, its copy. A source may be `to` itself.
struct local_work {
  region to;
  std::vector<region> from;
};

/// Messages that are under way at once, then work in its order. What is received must not be sent in the same step.
/// The messages from one rank to another arrive in the order in which they were sent. Several of one step are taken in
/// one step: long ones travel in pieces, a piece of each in turn.
struct schedule_step {
  std::vector<transfer> sends, recvs;
  std::vector<local_work> then;
};

/// One collective, as one rank sees it.
struct collective {
  operation op = operation::all_reduce;
  int ranks = 1, rank = 0, root = -1;
  std::size_t count = 0;         ///< elements of the whole array, as in comm::call
  std::size_t element_size = 1;  ///< bytes

  std::size_t bytes() const { return count * element_size; }
  region all() const { return {memory::data, 0, bytes()}; }
  /// Part i of `parts` of the array, in whole elements; by default rank i's shard.
  region block(int i, int parts) const {
    auto const s = shard(count, parts, i);
    return {memory::data, s.begin * element_size, s.size() * element_size};
  }
  region block(int i) const { return block(i, ranks); }
};

/// The steps of one rank.
struct schedule {
  std::vector<schedule_step> steps;
  std::size_t scratch_bytes = 0;

  schedule_step& add() { return steps.emplace_back(); }
  /// Scratch memory of its own.
  region scratch(std::size_t bytes) {
    region const r{memory::scratch, scratch_bytes, bytes};
    scratch_bytes += (bytes + 63) / 64 * 64;
    return r;
  }
};

/// What a schedule costs its rank. Nothing is sent where there is nothing to send.
struct schedule_cost {
  comm::traffic traffic;          ///< equal to what the communicator counts
  std::size_t steps = 0;          ///< with a message of this rank
  std::size_t messages = 0;       ///< sent
  std::size_t bytes_reduced = 0;  ///< that were read for sums
  friend bool operator==(schedule_cost const&, schedule_cost const&) = default;
};

inline schedule_cost cost_of(schedule const& s, int rank, topology const& hosts = {}) {
  schedule_cost c;
  c.traffic.operations = 1;
  for (auto const& step : s.steps) {
    bool moved = false;
    for (auto const& t : step.sends) {
      if (t.what.size == 0) continue;
      moved = true;
      ++c.messages;
      c.traffic.bytes_sent += t.what.size;
      if (!hosts.same_host(rank, t.peer)) c.traffic.sent_off_host += t.what.size;
    }
    for (auto const& t : step.recvs) {
      moved = moved || t.what.size != 0;
      c.traffic.bytes_received += t.what.size;
    }
    for (auto const& w : step.then)
      if (w.from.size() > 1) c.bytes_reduced += w.from.size() * w.to.size;
    c.steps += moved;
  }
  return c;
}

/// A set of operations.
struct operation_set {
  std::uint32_t bits = 0;
  constexpr operation_set() = default;
  constexpr operation_set(std::initializer_list<operation> all) {
    for (auto const op : all) bits |= bit(op);
  }
  constexpr bool has(operation op) const { return (bits & bit(op)) != 0; }

 private:
  static constexpr std::uint32_t bit(operation op) { return std::uint32_t{1} << static_cast<unsigned>(op); }
};

/// How a collective is made of messages: a value, of which `plan` is a pure function. An operation that is not in
/// `implements` is left to the communicator, which makes it by itself and counts it as algorithm::direct. May also have
///   check(ranks)          throws argument_error for a group that it is not for        default: any
///   leaves(collective)    true: the communicator makes it by itself after all         default: false
///   on(topology const&)   this algorithm, for these hosts                             default: hosts do not matter
///   part()                the algorithm for some of the ranks, made by split, shrink  default: itself
template <class A>
concept collective_algorithm = std::copyable<A> && requires(A const a, collective const& c) {
  { A::name } -> std::convertible_to<char const*>;
  requires std::same_as<decltype(A::sums), sum_order const>;
  requires std::same_as<decltype(A::implements), operation_set const>;
  { a.plan(c) } -> std::same_as<schedule>;
};

/// An algorithm's optional members, with their defaults.
template <collective_algorithm A>
struct algorithm_traits {
  /// Whether the algorithm makes this collective.
  static bool takes(A const& a, collective const& c) {
    if (!A::implements.has(c.op)) return false;
    if constexpr (requires { a.leaves(c); })
      return !a.leaves(c);
    else
      return true;
  }
  static void check(A const& a, int ranks) {
    if constexpr (requires { a.check(ranks); }) a.check(ranks);
  }
  static A on(A const& a, topology const& hosts) {
    if constexpr (requires { a.on(hosts); })
      return a.on(hosts);
    else
      return a;
  }
  static A part(A const& a) {
    if constexpr (requires { a.part(); })
      return a.part();
    else
      return a;
  }
};

}  // namespace dovetail::comm
