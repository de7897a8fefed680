// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>

#include <dovetail/comm/operation.hpp>
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

namespace dovetail::comm {

namespace detail::communicator_members {
DOVETAIL_MEMBER(about)
DOVETAIL_MEMBER(allow_other_thread)
DOVETAIL_MEMBER(has_spare_core)
}  // namespace detail::communicator_members

template <class C>
struct communicator_traits {
  static constexpr bool has_about = requires(C & c, subject const& s) { c.about(s); };
  static constexpr bool asks_for_threads = requires(C & c) { c.allow_other_thread(); };
  static constexpr bool knows_cores = requires(C const& c) {
    { c.has_spare_core() } -> std::convertible_to<bool>;
  };
};

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
  DOVETAIL_REQUIRE(about, "the communicator's `about` cannot be called as `about(comm::subject const&)`", C);
  DOVETAIL_REQUIRE(threads, "the communicator's `allow_other_thread` cannot be called as `allow_other_thread()`", C);
  DOVETAIL_REQUIRE(cores, "the communicator's `has_spare_core` cannot be called as `bool has_spare_core() const`", C);
  static constexpr bool holds = about && threads && cores;
};

}  // namespace detail

}  // namespace dovetail::comm
