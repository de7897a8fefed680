// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <type_traits>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>

// The only place that looks at what a communicator may have beside what concepts.hpp asks of it:
//
//   about(comm::subject const&)     says of what the next operations are, so that ranks that are not in the same step
//                                   notice; comm::subject{} means of nothing
//   allow_other_thread()            comm::async calls it before another thread uses the communicator; throws if none
//   may
//   has_spare_core()                whether a thread beside one that computes on each rank finds a core; comm::async
//                                   has none where it does not
//   static constexpr comm::sum_order sums
//                                   what it promises of the order of its sums; default: rank_order, as concepts.hpp
//                                   asks
//   topology()                      which ranks share a host, a comm::topology; default: all do
//   step_transport()                what an algorithm's steps are made by in place of messages: a
//                                   comm::step_transport (comm/algorithms/execution.hpp) with check(), begin(call),
//                                   fail() and unfinished(), of which comm::mpi is the example; default: messages

namespace dovetail::comm {

namespace detail::communicator_members {
DOVETAIL_MEMBER(about)
DOVETAIL_MEMBER(allow_other_thread)
DOVETAIL_MEMBER(has_spare_core)
DOVETAIL_MEMBER(sums)
DOVETAIL_MEMBER(topology)
DOVETAIL_MEMBER(step_transport)
}  // namespace detail::communicator_members

template <class C>
struct communicator_traits {
  static constexpr bool has_about = requires(C & c, subject const& s) { c.about(s); };
  static constexpr bool asks_for_threads = requires(C & c) { c.allow_other_thread(); };
  static constexpr bool knows_cores = requires(C const& c) {
    { c.has_spare_core() } -> std::convertible_to<bool>;
  };
  static constexpr bool says_sums = [] {
    if constexpr (requires { requires std::is_same_v<decltype(&C::sums), sum_order const*>; }) return requires {
        typename std::integral_constant<sum_order, C::sums>;
      };
    else
      return false;
  }();
  static constexpr bool has_topology = requires(C const& c) {
    requires std::is_same_v<std::remove_cvref_t<decltype(c.topology())>, comm::topology>;
  };
  static constexpr bool has_step_transport = requires(C & c, call const& asked) {
    c.step_transport().check();
    c.step_transport().begin(asked);
    c.step_transport().fail();
    requires std::is_same_v<decltype(c.step_transport().unfinished()), bool>;
  };
  static constexpr sum_order sums = [] {
    if constexpr (says_sums)
      return C::sums;
    else
      return sum_order::rank_order;
  }();
};

/// Which of a communicator's ranks share a host.
template <class C>
comm::topology topology_of(C const& c) {
  if constexpr (communicator_traits<C>::has_topology)
    return c.topology();
  else
    return comm::topology::one_host(c.size());
}

namespace detail {

/// Refuses a communicator with a member that would be left out.
template <class C>
struct must_be_a_communicator {
  static constexpr bool about = [] {
    if constexpr (communicator_traits<C>::has_about)
      return true;
    else
      return !communicator_members::has_about<C>;
  }();
  static constexpr bool threads = [] {
    if constexpr (communicator_traits<C>::asks_for_threads)
      return true;
    else
      return !communicator_members::has_allow_other_thread<C>;
  }();
  static constexpr bool cores = [] {
    if constexpr (communicator_traits<C>::knows_cores)
      return true;
    else
      return !communicator_members::has_has_spare_core<C>;
  }();
  static constexpr bool says_sums = [] {
    if constexpr (communicator_traits<C>::says_sums)
      return true;
    else
      return !communicator_members::has_sums<C>;
  }();
  static constexpr bool hosts = [] {
    if constexpr (communicator_traits<C>::has_topology)
      return true;
    else
      return !communicator_members::has_topology<C>;
  }();
  static constexpr bool steps = [] {
    if constexpr (communicator_traits<C>::has_step_transport)
      return true;
    else
      return !communicator_members::has_step_transport<C>;
  }();
  DOVETAIL_REQUIRE(about, "the communicator's `about` cannot be called as `about(comm::subject const&)`", C);
  DOVETAIL_REQUIRE(threads, "the communicator's `allow_other_thread` cannot be called as `allow_other_thread()`", C);
  DOVETAIL_REQUIRE(cores, "the communicator's `has_spare_core` cannot be called as `bool has_spare_core() const`", C);
  DOVETAIL_REQUIRE(says_sums, "the communicator's `sums` is not a `static constexpr comm::sum_order`", C);
  DOVETAIL_REQUIRE(hosts, "the communicator's `topology` cannot be called as `comm::topology topology() const`", C);
  DOVETAIL_REQUIRE(steps,
                   "the communicator's `step_transport()` does not return what comm/communicator_traits.hpp says", C);
  static constexpr bool holds = about && threads && cores && says_sums && hosts && steps;
};

/// Refuses a communicator on which replicas would drift apart.
template <class C>
struct must_keep_replicas_equal {
  static constexpr bool holds = communicator_traits<C>::sums != sum_order::unspecified;
  DOVETAIL_REQUIRE(holds,
                   "may give its ranks different sums, so replicas would not stay equal: use one whose `sums` is "
                   "comm::sum_order::same_on_all or rank_order, as every comm::with_algorithm is",
                   C);
};

}  // namespace detail

}  // namespace dovetail::comm
