// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <functional>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/trace.hpp>

// The only place that looks at what a session may have beside what concepts.hpp asks of it:
//
//   observer()                     what gradient_pass::observe must be: a function of kfac_statistics, or an empty one
//   finish()                       collective; makes the weights what the training gives, equal on all ranks
//   record(trace*)                 notes what is exchanged from now on
//   measures_noise(), measured()   whether the last step's squared norms were measured, and what they are: a value with
//                                  `own` and `summed`
//   static constexpr bool independent = true    ranks train apart: each has all data in an order of its own, and may
//                                  skip a step alone

namespace dovetail::sync {

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
  static constexpr bool independent = requires { requires static_cast<bool>(Session::independent); };
};

namespace detail {

namespace session_members {
DOVETAIL_MEMBER_FUNCTION(observer)
DOVETAIL_MEMBER_FUNCTION(finish)
DOVETAIL_MEMBER_FUNCTION(record)
DOVETAIL_MEMBER_FUNCTION(measures_noise)
DOVETAIL_MEMBER_FUNCTION(measured)
}  // namespace session_members

/// Refuses a session with a member that would be left out.
template <class Session>
struct must_be_a_session {
  using traits = session_traits<Session>;
  static constexpr bool observer = !session_members::has_observer<Session> || traits::observes;
  static constexpr bool finish = !session_members::has_finish<Session> || traits::finishes;
  static constexpr bool record = !session_members::has_record<Session> || traits::records;
  static constexpr bool noise =
      !(session_members::has_measures_noise<Session> || session_members::has_measured<Session>) || traits::measures;
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
  static constexpr bool holds = observer && finish && record && noise;
};

}  // namespace detail

}  // namespace dovetail::sync
