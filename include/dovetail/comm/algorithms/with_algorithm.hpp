// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <dovetail/comm/algorithms/direct.hpp>
#include <dovetail/comm/algorithms/execution.hpp>
#include <dovetail/comm/algorithms/message_transport.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/comm/arguments.hpp>
#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/decorators/decorated_world.hpp>
#include <dovetail/comm/decorators/forwarding.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/fingerprint.hpp>

namespace dovetail::comm {

/// What a call costs one rank with an algorithm: equal to what its communicator counts. What the algorithm leaves to
/// the communicator is counted as algorithm::direct.
template <collective_algorithm A>
schedule_cost cost(A const& a, call const& c, int ranks, int rank, topology const& hosts = {}) {
  collective const what{c.op, ranks, rank, c.root, c.count, size_of(c.type)};
  auto const here = algorithm_traits<A>::on(a, hosts.empty() ? topology::one_host(ranks) : hosts);
  if (!algorithm_traits<A>::takes(here, what)) return cost_of(algorithm::direct{}.plan(what), rank, hosts);
  return cost_of(here.plan(what), rank, hosts);
}

/// A communicator whose collectives are made by an algorithm, of messages on a duplicate of the communicator, or of its
/// own means (comm::mpi). All ranks have the same algorithm. Its operations are those in A::implements; the others, and
/// messages, are the communicator's. Made by with_algorithm. After a failure collectives throw the same for ever, as
/// those of every communicator.
template <class C, collective_algorithm A>
class algorithm_communicator : public forwarding<algorithm_communicator<C, A>, C> {
  using base = forwarding<algorithm_communicator<C, A>, C>;
  /// The communicator's own means, where it offers them; otherwise messages on a duplicate of it.
  static auto transport_of(C& c) {
    if constexpr (communicator_traits<C>::has_step_transport)
      return c.step_transport();
    else if constexpr (requires { c.duplicate(); })
      return detail::message_transport(c.duplicate());
    else
      return detail::message_transport(c.split(0, c.rank()));
  }
  using transport_type = decltype(transport_of(std::declval<C&>()));
  static constexpr bool by_steps = communicator_traits<C>::has_step_transport;
  static constexpr bool reduces =
      A::implements.has(operation::all_reduce) || A::implements.has(operation::reduce_scatter);
  static constexpr bool makes_all_sums = A::implements.has(operation::all_reduce) &&
                                         A::implements.has(operation::reduce_scatter) &&
                                         !requires(A const& a, collective const& c) {
    a.leaves(c);
  };

 public:
  static constexpr sum_order sums = !reduces ? base::sums : makes_all_sums ? A::sums : weaker(A::sums, base::sums);

  /// Collective.
  template <class Inner>
  algorithm_communicator(Inner&& inner, A algorithm)
      : base(std::forward<Inner>(inner)),
        asked_(std::move(algorithm)),
        hosts_(base::topology()),
        algorithm_(algorithm_traits<A>::on(asked_, hosts_)) {
    algorithm_traits<A>::check(algorithm_, base::size());
    auto const before = base::traffic();
    transport_.emplace(transport_of(base::inner()));
    hidden_ = base::traffic() - before;
  }

  A const& algorithm() const { return algorithm_; }
  comm::traffic traffic() const { return base::traffic() - hidden_ + moved_; }
  comm::topology const& topology() const { return hosts_; }
  /// What the schedule of a call costs this rank.
  schedule_cost cost_of(call const& c) const {
    if constexpr (requires { base::inner().cost_of(c); })
      if (!algorithm_traits<A>::takes(algorithm_, what_of(c))) return base::inner().cost_of(c);
    return comm::cost(algorithm_, c, base::size(), base::rank(), hosts_);
  }

  /// What the communicator makes by itself is over as well after a failure of the algorithm.
  template <class F>
  void around(call const& c, F const& operation) {
    using enum comm::operation;
    if (c.op != send && c.op != recv && c.op != wait_message && c.op != shrink) transport_->check();
    operation();
  }

  template <reducible T>
  void all_reduce(std::span<T> data, reduction how = reduction::sum) {
    auto const c = base::template a_call<T>(operation::all_reduce, data.size(), -1, how);
    make(c, bytes_of(data), bytes_of(data), reducer<T>(how), [&] { base::all_reduce(data, how); });
  }
  template <reducible T>
  void reduce_scatter(std::span<T> data, reduction how = reduction::sum) {
    auto const c = base::template a_call<T>(operation::reduce_scatter, data.size(), -1, how);
    make(c, bytes_of(data), bytes_of(data), reducer<T>(how), [&] { base::reduce_scatter(data, how); });
  }
  template <movable T>
  void all_gather(std::span<T> data) {
    auto const c = base::template a_call<T>(operation::all_gather, data.size());
    auto* const own = bytes_of(data) + c.shard_bytes(base::size(), base::rank()).begin;
    make(c, own, bytes_of(data), nullptr, [&] { base::all_gather(data); });
  }
  template <movable T>
  void all_gather(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    detail::check_all_gather({in.data(), in.size(), out.data(), out.size()}, base::size(), base::rank());
    auto const c = base::template a_call<T>(operation::all_gather, out.size());
    make(c, bytes_of(in), bytes_of(out), nullptr, [&] { base::template all_gather<T>(in, out); });
  }
  template <movable T>
  void all_to_all(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    detail::check_all_to_all({in.data(), in.size(), out.data(), out.size()}, base::size());
    auto const c = base::template a_call<T>(operation::all_to_all, in.size());
    make(c, bytes_of(in), bytes_of(out), nullptr, [&] { base::template all_to_all<T>(in, out); });
  }
  template <movable T>
  void broadcast(std::span<T> data, int root) {
    detail::check_rank("broadcast from root ", root, base::size());
    auto const c = base::template a_call<T>(operation::broadcast, data.size(), root);
    make(c, bytes_of(data), bytes_of(data), nullptr, [&] { base::broadcast(data, root); });
  }

  /// As of the communicator; also for the messages of the algorithm.
  auto away() {
    if constexpr (by_steps) {
      return base::away();
    } else {
      using both = std::pair<decltype(base::away()), decltype(transport_->messages().away())>;
      auto const held = std::make_shared<both>(base::away(), transport_->messages().away());
      return away_guard([held] {});
    }
  }
  std::vector<int> lost_ranks() const requires requires(C const& c) { c.lost_ranks(); }
  {
    auto all = base::lost_ranks();
    if constexpr (!by_steps)
      for (int const r : transport_->messages().lost_ranks())
        if (std::find(all.begin(), all.end(), r) == all.end()) all.push_back(r);
    std::sort(all.begin(), all.end());
    return all;
  }
  void abort(std::string const& why) requires requires(C& c) { c.abort(why); }
  {
    if constexpr (!by_steps) transport_->messages().abort(why);
    base::abort(why);
  }

  template <class Part>
  auto wrap(Part part) const {
    return algorithm_communicator<Part, A>(std::move(part), algorithm_traits<A>::part(asked_));
  }

 private:
  template <class T>
  static std::byte* bytes_of(std::span<T> s) {
    return reinterpret_cast<std::byte*>(s.data());
  }
  template <class T>
  static std::byte const* bytes_of(std::span<T const> s) {
    return reinterpret_cast<std::byte const*>(s.data());
  }

  collective what_of(call const& c) const {
    return {c.op, base::size(), base::rank(), c.root, c.count, size_of(c.type)};
  }
  template <class Own>
  void make(call const& c, std::byte const* input, std::byte* data, ordered_reduce combine, Own const& own) {
    transport_->check();
    try {
      auto const what = what_of(c);
      if (!algorithm_traits<A>::takes(algorithm_, what)) return own();
      auto const& p = planned(what);
      if (scratch_.size() < p.steps.scratch_bytes) scratch_ = buffer<std::byte>(p.steps.scratch_bytes);
      transport_->begin(c);
      execution<transport_type> e(p.steps, *transport_, input, data, scratch_.data(), what.element_size, combine);
      e.wait();
      moved_ = moved_ + p.moves;
    } catch (...) {
      transport_->fail();
      if constexpr (by_steps)  // what still comes goes to memory that stays
        if (transport_->unfinished()) static_cast<void>(new buffer<std::byte>(std::move(scratch_)));
      throw;
    }
  }

  struct plan {
    schedule steps;
    comm::traffic moves;
  };
  using key = std::tuple<operation, std::size_t, std::size_t, int>;
  struct hash {
    std::size_t operator()(key const& k) const {
      auto const [op, count, size, root] = k;
      return fingerprint{}.add(static_cast<int>(op)).add(count).add(size).add(root).value();
    }
  };
  /// Training asks for the same collectives in every step.
  plan const& planned(collective const& c) {
    key const k{c.op, c.count, c.element_size, c.root};
    if (auto const known = plans_.find(k); known != plans_.end()) return known->second;
    if (plans_.size() >= most_plans) plans_.clear();
    auto steps = algorithm_.plan(c);
    auto const moves = comm::cost_of(steps, c.rank, hosts_).traffic;
    return plans_.emplace(k, plan{std::move(steps), moves}).first->second;
  }
  static constexpr std::size_t most_plans = 256;

  A asked_;
  comm::topology hosts_;
  A algorithm_;
  std::optional<transport_type> transport_;
  comm::traffic hidden_, moved_;
  std::unordered_map<key, plan, hash> plans_;
  buffer<std::byte> scratch_;
};

/// `communicator` with this algorithm: with_algorithm(comm, algorithm::ring{}). Collective. Refers to a communicator
/// that is given by name, which must outlive it; holds one that is moved into it. Of a world: a world of such
/// communicators.
template <class C, collective_algorithm A>
auto with_algorithm(C&& communicator, A algorithm) {
  using inner = std::remove_cvref_t<C>;
  if constexpr (detail::one_ranks_end<inner>)
    return algorithm_communicator<inner, A>(std::forward<C>(communicator), std::move(algorithm));
  else
    return decorated_world(std::forward<C>(communicator), [algorithm = std::move(algorithm)](auto& c) {
      return algorithm_communicator<std::remove_cvref_t<decltype(c)>, A>(c, algorithm);
    });
}

}  // namespace dovetail::comm
