// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <functional>

#include <dovetail/comm/operation.hpp>
#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/sync/role.hpp>

// The only place that looks at what a session may have beside what concepts.hpp asks of it:
//
//   observer()                     what gradient_pass::observe must be: a function of kfac_statistics, or an empty one
//   finish()                       collective; makes the weights what the training gives, equal on all ranks
//   record(trace*)                 notes what is exchanged from now on
//   measures_noise(), measured()   whether the last step's squared norms were measured, and what they are: a value with
//                                  `own` and `summed`
//   role(), serve()                what this rank does, a sync::role, and what one that serves does in place of a loop;
//                                  both or neither
//   traffic()                      what has been moved on communicators of its own, a comm::traffic; default: nothing
//   acquire(range), release(range)   what gradient_pass::acquire and release must be, where weights are not all there;
//   both
//                                  or neither
//   static constexpr bool independent = true    ranks train apart: each has all data in an order of its own, and may
//                                  skip a step alone
//   static constexpr bool owns_unevenly = true  ranks differ in what `own` lists: when a state is loaded, each looks at
//                                  its own
//
// and at what a synchronizer may have beside join:
//
//   codec                          data: what its gradients are exchanged by, named in logs and checkpoints

namespace dovetail::sync {

namespace detail::session_members {
DOVETAIL_MEMBER_FUNCTION(observer)
DOVETAIL_MEMBER_FUNCTION(finish)
DOVETAIL_MEMBER_FUNCTION(record)
DOVETAIL_MEMBER_FUNCTION(measures_noise)
DOVETAIL_MEMBER_FUNCTION(measured)
DOVETAIL_MEMBER_FUNCTION(role)
DOVETAIL_MEMBER_FUNCTION(serve)
DOVETAIL_MEMBER_FUNCTION(traffic)
DOVETAIL_MEMBER_FUNCTION(acquire)
DOVETAIL_MEMBER_FUNCTION(release)
DOVETAIL_MEMBER_CONSTANT(independent)
DOVETAIL_MEMBER_CONSTANT(owns_unevenly)
}  // namespace detail::session_members

template <class Session>
struct session_traits {
  static constexpr bool observes = requires(Session & s, std::function<void(kfac_statistics const&)>& f) {
    f = s.observer();
  };
  static constexpr bool finishes = requires(Session & s) { s.finish(); };
  static constexpr bool records = requires(Session & s, trace* t) { s.record(t); };
  static constexpr bool measures = requires(Session & s) {
    { s.measures_noise() } -> std::convertible_to<bool>;
    { s.measured().own } -> std::convertible_to<double>;
    { s.measured().summed } -> std::convertible_to<double>;
  };
  static constexpr bool has_servers = requires(Session & s) {
    { s.role() } -> std::same_as<role>;
    s.serve();
  };
  static constexpr bool counts = requires(Session const& s) {
    { s.traffic() } -> std::convertible_to<comm::traffic>;
  };
  static constexpr bool acquires = requires(Session & s, range r) {
    s.acquire(r);
    s.release(r);
  };
  static constexpr bool independent = detail::session_members::independent_or<Session>(false);
  static constexpr bool owns_unevenly = detail::session_members::owns_unevenly_or<Session>(false);
};

template <class Sync>
struct synchronizer_traits {
  static constexpr bool has_codec = requires(Sync const& s) { s.codec; };
};

namespace detail {

/// Refuses a session with a member that would be left out.
template <class Session>
struct must_be_a_session {
  using traits = session_traits<Session>;
  static constexpr bool observer = !session_members::has_observer<Session> || traits::observes;
  static constexpr bool finish = !session_members::has_finish<Session> || traits::finishes;
  static constexpr bool record = !session_members::has_record<Session> || traits::records;
  static constexpr bool noise =
      !(session_members::has_measures_noise<Session> || session_members::has_measured<Session>) || traits::measures;
  static constexpr bool servers =
      !(session_members::has_role<Session> || session_members::has_serve<Session>) || traits::has_servers;
  static constexpr bool moved = !session_members::has_traffic<Session> || traits::counts;
  static constexpr bool weights =
      !(session_members::has_acquire<Session> || session_members::has_release<Session>) || traits::acquires;
  static constexpr bool apart = !session_members::independent_misfits<Session, bool>();
  static constexpr bool uneven = !session_members::owns_unevenly_misfits<Session, bool>();
  DOVETAIL_REQUIRE(observer,
                   "the session's observer cannot be called as observer(), for a "
                   "std::function<void(kfac_statistics const&)>",
                   Session);
  DOVETAIL_REQUIRE(finish, "the session's finish cannot be called as finish()", Session);
  DOVETAIL_REQUIRE(record, "the session's record cannot be called as record(trace*)", Session);
  DOVETAIL_REQUIRE(noise,
                   "a session that measures noise has bool measures_noise(), and measured() with the numbers "
                   "`own` and `summed`",
                   Session);
  DOVETAIL_REQUIRE(servers, "a session with servers has `sync::role role()` and serve(), both", Session);
  DOVETAIL_REQUIRE(moved, "the session's traffic cannot be called as traffic() const, for a comm::traffic", Session);
  DOVETAIL_REQUIRE(weights, "a session that divides weights has acquire(range) and release(range), both", Session);
  DOVETAIL_REQUIRE(apart, "the session's independent is not `static constexpr bool independent = ...`", Session);
  DOVETAIL_REQUIRE(uneven, "the session's owns_unevenly is not `static constexpr bool owns_unevenly = ...`", Session);
  static constexpr bool holds = observer && finish && record && noise && servers && moved && weights && apart && uneven;
};

}  // namespace detail

}  // namespace dovetail::sync
