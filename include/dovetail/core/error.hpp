// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include <dovetail/core/config.hpp>

namespace dovetail {

/// Concatenates anything that can be streamed: the words of an error message.
template <class... Parts>
DOVETAIL_COLD std::string message(Parts const&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
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
  comm_error(std::string const& what, int rank) : error(what), rank(rank) {}
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
template <class Error, class... Parts>
[[noreturn]] DOVETAIL_COLD void fail(Parts const&... parts) {
  throw Error(message(parts...));
}
}  // namespace detail

/// Throws `Error` with the message made of `parts` unless `condition` holds.
template <class Error = argument_error, class... Parts>
inline void require(bool condition, Parts const&... parts) {
  if (!condition) [[unlikely]] detail::fail<Error>(parts...);
}

}  // namespace dovetail
