// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

// Which values a policy can work with, declared once, beside its fields:
//
//   struct scale_by_signum {
//     float beta = 0.9f;
//     static constexpr auto describe() {
//       return policy{"scale_by_signum", field{"beta", &scale_by_signum::beta, ranges::share}};
//     }
//
// Whoever is about to use the policy calls check_policy before anything changes. NaN lies in no range.

namespace dovetail {

/// The finite numbers from `low` to `high`, and infinity where that is meant as "no bound".
struct bounds {
  double low = std::numeric_limits<double>::lowest(), high = std::numeric_limits<double>::max();
  bool above = false, below = false;  ///< without low, without high
  bool unbounded = false;             ///< and infinity

  constexpr bool holds(double const& x) const {
    if (!is_finite(x)) return unbounded && !is_nan(x) && std::bit_cast<std::uint64_t>(x) >> 63 == 0;
    return (above ? x > low : x >= low) && (below ? x < high : x <= high);
  }
};

namespace ranges {
inline constexpr bounds finite{};
inline constexpr bounds not_negative{.low = 0};
inline constexpr bounds positive{.low = 0, .above = true};
inline constexpr bounds positive_or_infinite{.low = 0, .above = true, .unbounded = true};
inline constexpr bounds share{.low = 0, .high = 1, .below = true};  ///< what an average keeps
inline constexpr bounds unit{.low = 0, .high = 1};
inline constexpr bounds positive_unit{.low = 0, .high = 1, .above = true};
inline constexpr bounds count{.low = 1};  ///< steps, blocks, samples
}  // namespace ranges

namespace detail {
/// Its address stands for the type.
template <class Member>
inline constexpr char type_tag = 0;

/// What of a field does not depend on whose field it is: compiled once for all policies.
class field_base {
 public:
  constexpr char const* name() const { return name_; }
  constexpr bool has_range() const { return of_ >= f32; }
  /// True or false.
  constexpr bool is_flag() const { return of_ == flag; }
  /// The names of its values, or nullptr.
  constexpr char const* choices() const { return choices_; }
  /// Whether there are any: a constant under GCC's sanitizers too, which a comparison of an address is not.
  constexpr bool has_choices() const { return has_choices_; }
  constexpr bounds const& range() const { return range_; }
  /// An integer.
  constexpr bool whole() const { return of_ > f64; }
  constexpr bool without_sign() const { return of_ == ul; }
  /// True if the field's type has the number x, rounded where it is a float.
  constexpr bool represents(double const& x) const {
    if (of_ == f64) return true;
    if (of_ == f32) return !is_finite(x) || (x >= -0x1.fffffep127 && x <= 0x1.fffffep127);
    double const high = of_ == i32 ? 0x1p31 : of_ == ul ? 0x1p64 : 0x1p63, low = of_ == ul ? 0 : -high;
    return is_finite(x) && x >= low && x < high &&
           (x >= 0x1p53 || x <= -0x1p53 || x == static_cast<double>(static_cast<long long>(x)));
  }

 protected:
  enum kind : unsigned char { any, object, choice, flag, f32, f64, i32, l, ll, ul };
  constexpr field_base(char const* name, kind of, bounds const& r = {}) : name_(name), range_(r), of_(of) {}
  constexpr field_base(char const* name, char const* choices)
      : name_(name), choices_(choices), range_{}, of_(any), has_choices_(true) {}

  char const* name_;
  char const* choices_ = nullptr;
  bounds range_;
  kind of_;
  bool has_choices_ = false;
};
}  // namespace detail

/// A field of policy T. One type for fields of all numbers: a type for each would cost every program its compile time.
template <class T>
class field : public detail::field_base {
 public:
  /// A name without a range: any value will do, or it is a part that checks itself.
  template <class Member>
  constexpr field(char const* name, Member T::*x) : field_base(name, any) {
    if (!std::is_constant_evaluated()) {
      of_ = object;
      member_ = reinterpret_cast<char T::*>(x);
      type_ = &detail::type_tag<Member>;
    }
  }
  /// One of several: the names of the values 0, 1, 2, … of an enumeration, with a space between two.
  template <class Enum>
  constexpr field(char const* name, Enum T::*x, char const* choices) : field_base(name, choices) {
    if (!std::is_constant_evaluated()) {
      of_ = choice;
      member_ = reinterpret_cast<char T::*>(x);
      choose_ = [](T& of, char T::*m, long& index, bool changes) {
        auto& e = of.*reinterpret_cast<Enum T::*>(m);
        if (changes)
          e = static_cast<Enum>(index);
        else
          index = static_cast<long>(e);
      };
    }
  }
  constexpr field(char const* name, bool T::*x) : field_base(name, flag), flag_(x) {}
  constexpr field(char const* name, float T::*x, bounds const& r) : field_base(name, f32, r), f32_(x) {}
  constexpr field(char const* name, double T::*x, bounds const& r) : field_base(name, f64, r), f64_(x) {}
  constexpr field(char const* name, int T::*x, bounds const& r) : field_base(name, i32, r), i32_(x) {}
  constexpr field(char const* name, long T::*x, bounds const& r) : field_base(name, l, r), l_(x) {}
  constexpr field(char const* name, long long T::*x, bounds const& r) : field_base(name, ll, r), ll_(x) {}
  constexpr field(char const* name, unsigned long T::*x, bounds const& r) : field_base(name, ul, r), ul_(x) {}

  /// The field's value in `of`; 0 of one that is no number and no bool.
  constexpr double value(T const& of) const {
    switch (of_) {
      case any:
      case object:
      case choice:
        break;
      case flag:
        return of.*flag_ ? 1 : 0;
      case f32:
        return static_cast<double>(of.*f32_);
      case f64:
        return of.*f64_;
      case i32:
        return of.*i32_;
      case l:
        return static_cast<double>(of.*l_);
      case ll:
        return static_cast<double>(of.*ll_);
      case ul:
        return static_cast<double>(of.*ul_);
    }
    return 0;
  }
  /// Changes the field, if it has a range or is a bool. `x` is one of its numbers (represents).
  constexpr void set(T& of, double x) const {
    switch (of_) {
      case any:
      case object:
      case choice:
        break;
      case flag:
        of.*flag_ = x > 0 || x < 0;
        break;
      case f32:
        of.*f32_ = static_cast<float>(x);
        break;
      case f64:
        of.*f64_ = x;
        break;
      case i32:
        of.*i32_ = static_cast<int>(x);
        break;
      case l:
        of.*l_ = static_cast<long>(x);
        break;
      case ll:
        of.*ll_ = static_cast<long long>(x);
        break;
      case ul:
        of.*ul_ = static_cast<unsigned long>(x);
        break;
    }
  }
  constexpr bool holds(T const& of) const { return !has_range() || range_.holds(value(of)); }

  // What is no number is reached only through a field that was made when the program runs, `T::describe()`: a constant
  // expression can keep a pointer to a member of one of a few known types only.

  /// The field in `of`, if it is a V; otherwise nullptr.
  template <class V>
  V* as(T& of) const {
    return of_ == object && type_ == &detail::type_tag<V> ? &(of.*reinterpret_cast<V T::*>(member_)) : nullptr;
  }
  /// The place of the field's value among its choices; -1 of a field without choices.
  long chosen(T const& of) const {
    long index = -1;
    if (of_ == choice) choose_(const_cast<T&>(of), member_, index, false);
    return index;
  }
  void choose(T& of, long index) const {
    if (of_ == choice) choose_(of, member_, index, true);
  }

 private:
  template <class V>
  using member = V T::*;
  union {
    member<float> f32_ = nullptr;
    member<char> member_;
    member<bool> flag_;
    member<double> f64_;
    member<int> i32_;
    member<long> l_;
    member<long long> ll_;
    member<unsigned long> ul_;
  };
  union {
    void const* type_ = nullptr;
    void (*choose_)(T& of, char T::*, long& index, bool changes);
  };
};

/// What a type says of itself: the name that messages use, and its fields.
template <class T, std::size_t N = 0>
struct policy {
  char const* name;
  field<T> fields[N];
  template <class... Fields>
  constexpr policy(char const* n, Fields const&... f) : name(n), fields{f...} {}
  constexpr auto const* begin() const { return fields; }
  constexpr auto const* end() const { return fields + N; }
};
template <class T>
struct policy<T, 0> {
  char const* name;
  constexpr field<T> const* begin() const { return nullptr; }
  constexpr field<T> const* end() const { return nullptr; }
};
template <class T, class... More>
policy(char const*, field<T>, More...) -> policy<T, 1 + sizeof...(More)>;

namespace detail {
/// "at least 0 and below 1".
DOVETAIL_COLD inline std::string to_words(bounds const& r) {
  bool const from = r.low > std::numeric_limits<double>::lowest(), to = r.high < std::numeric_limits<double>::max();
  if (!from && !to) return "a number";
  std::string s;
  if (from) s = message(r.above ? "above " : "at least ", r.low);
  if (to) s += message(from ? " and " : "", r.below ? "below " : "at most ", r.high);
  return s;
}
[[noreturn]] DOVETAIL_COLD inline void refuse(char const* policy, char const* field, double const& value,
                                              bounds const& r) {
  throw argument_error(message(policy, ": ", field, " is ", value, ": it must be ", to_words(r),
                               is_finite(value) || r.unbounded ? "" : ", and finite"));
}

template <class T>
concept described = requires {
  T::describe();
};
/// Evaluated at compile time, once for each type that is used.
template <described T>
inline constexpr auto policy_of = T::describe();

/// Not inlined: it is called once a step at most, and stands in many functions.
template <described T>
DOVETAIL_NOINLINE constexpr void check_fields(T const& x) {
  for (auto const& f : policy_of<T>)
    if (!f.holds(x)) refuse(policy_of<T>.name, f.name(), f.value(x), f.range());
}
}  // namespace detail

/// Throws argument_error, naming policy, field and value, unless every field lies in its range, and for what the
/// policy's own `check()` refuses, of several fields together or of its parts. Changes nothing.
template <class T>
constexpr void check_policy(T const& x) {
  if constexpr (detail::described<T>) detail::check_fields(x);
  if constexpr (requires { x.check(); }) x.check();
}

}  // namespace dovetail
