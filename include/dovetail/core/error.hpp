// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <dovetail/core/config.hpp>

// The exceptions of the library, and `require`, which throws them with a message made of values.
namespace dovetail {

namespace detail {

/// Appends what is streamed to a string. The standard's string stream would cost every program its compile time, and
/// this one's base class is looked at where something is streamed only: <ostream> is included there.
template <class Char>
class string_sink : public std::basic_streambuf<Char> {
  using base = std::basic_streambuf<Char>;

 public:
  explicit string_sink(std::string& to) : to_(to) {}

 protected:
  typename base::int_type overflow(typename base::int_type c) override {
    if (base::traits_type::eq_int_type(c, base::traits_type::eof())) return base::traits_type::not_eof(c);
    to_ += base::traits_type::to_char_type(c);
    return c;
  }
  std::streamsize xsputn(Char const* text, std::streamsize n) override {
    to_.append(text, static_cast<std::size_t>(n));
    return n;
  }

 private:
  std::string& to_;
};
template <class T>
concept has_text = requires(T const& x, std::string& out) {
  append_text(out, x);
};
template <class T, class Char = char>
DOVETAIL_COLD void append_value(std::string& to, void const* value) {
  if constexpr (has_text<T>) {
    append_text(to, *static_cast<T const*>(value));
  } else {
    string_sink<Char> sink(to);
    std::basic_ostream<Char> out(&sink);
    out.imbue(out.getloc().classic());
    out << *static_cast<T const*>(value);
  }
}

/// A part of a message: refers to a value, so it lives as long as the call only. One type for all values, because a
/// function per combination of types would cost every program its compile time.
class part {
 public:
  part(char const* s) : part(std::string_view(s)) {}
  part(std::string const& s) : part(std::string_view(s)) {}
  part(std::string_view s) : value_(s.data()), length_(s.size()) {}
  template <std::signed_integral T>
  part(T x) : how_(signed_number), integer_(static_cast<std::uint64_t>(std::int64_t{x})) {}
  template <std::unsigned_integral T>
  part(T x) : how_(unsigned_number), integer_(x) {}
  part(char c) : how_(character), integer_(static_cast<unsigned char>(c)) {}
  part(double x) : how_(real), real_(x) {}
  part(float x) : part(static_cast<double>(x)) {}
  /// Anything else that can be streamed, or of which append_text(std::string&, x) adds the words.
  template <class T>
  requires(!std::convertible_to<T const&, std::string_view> && !std::is_arithmetic_v<T>) part(T const& x)
      : value_(&x), how_(other), append_(append_value<T>) {}

  DOVETAIL_COLD void append_to(std::string& out) const {
    char digits[32];
    auto const put = [&](std::to_chars_result r) { out.append(digits, r.ptr); };
    switch (how_) {
      case words:
        out.append(static_cast<char const*>(value_), length_);
        break;
      case signed_number:
        put(std::to_chars(digits, digits + sizeof digits, static_cast<std::int64_t>(integer_)));
        break;
      case unsigned_number:
        put(std::to_chars(digits, digits + sizeof digits, integer_));
        break;
      case character:
        out += static_cast<char>(integer_);
        break;
      case real:
        put(std::to_chars(digits, digits + sizeof digits, real_, std::chars_format::general, 6));
        break;
      case other:
        append_(out, value_);
    }
  }

 private:
  enum : std::uint8_t { words, signed_number, unsigned_number, character, real, other };
  void const* value_ = nullptr;
  std::size_t length_ = 0;
  decltype(words) how_ = words;
  union {
    std::uint64_t integer_ = 0;
    double real_;
    void (*append_)(std::string&, void const*);
  };
};

DOVETAIL_COLD inline std::string joined(std::initializer_list<part> parts) {
  std::string s;
  for (auto const& p : parts) p.append_to(s);
  return s;
}

}  // namespace detail

/// Concatenates numbers, strings and anything that can be streamed: the words of an error message. The same whatever
/// the global locale is.
template <class... Parts>
std::string message(Parts const&... parts) {
  return detail::joined({parts...});
}

/// Every failure of the library is an exception of this small hierarchy. `what()` is one line:
/// what failed, where, with which values, and the way out.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The caller's values cannot be worked with: a hyperparameter, a shape, a size, an option.
struct argument_error : error {
  using error::error;
};

/// Data from outside is missing or malformed: a data set, a corpus, a payload.
struct input_error : error {
  using error::error;
};

/// A checkpoint cannot be written, read or trusted. Nothing was changed.
struct checkpoint_error : error {
  using error::error;
};

/// The training diverged: a loss or a gradient is not finite.
struct numeric_error : error {
  using error::error;
};

/// Ranks could not complete an operation together. `rank` is the rank that is to blame, or -1.
struct comm_error : error {
  comm_error(std::string const& what, int who) : error(what), rank(who) {}
  int rank;
};

/// A rank threw, exited, was killed, or did not answer within the deadline.
struct rank_lost : comm_error {
  using comm_error::comm_error;
};

/// A rank called another operation, or the same one with another size or type.
struct rank_diverged : comm_error {
  using comm_error::comm_error;
};

namespace detail {
template <class Error>
[[noreturn]] DOVETAIL_COLD void fail(std::initializer_list<part> parts) {
  throw Error(joined(parts));
}
}  // namespace detail

/// Throws `Error` with the message made of `parts` unless `condition` holds.
template <class Error = argument_error, class... Parts>
inline void require(bool condition, Parts const&... parts) {
  if (!condition) [[unlikely]]
    detail::fail<Error>({parts...});
}

}  // namespace dovetail
