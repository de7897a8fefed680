// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <charconv>
#include <cstdio>
#include <functional>
#include <string>

#include <dovetail/core/error.hpp>

// What both programs do about command lines and output that cannot work.
namespace examples {

/// For CLI::Option::check: the whole text must be a number from `low` to `high`. Neither "nan" nor what overflows T is
/// one, so a run that cannot work ends before it has begun.
template <class T>
std::function<std::string(std::string const&)> number_in(T low, T high) {
  return [=](std::string const& text) -> std::string {
    T x{};
    auto const end = text.data() + text.size();
    auto const [stopped, failed] = std::from_chars(text.data(), end, x);
    if (failed == std::errc() && stopped == end && x >= low && x <= high) return "";
    return dovetail::message("'", text, "' is not a number from ", low, " to ", high);
  };
}

/// Throws if what was printed did not arrive: a full disk must not look like success.
inline void check_output() {
  bool const flushed = std::fflush(stdout) == 0;
  dovetail::require<dovetail::error>(flushed && !std::ferror(stdout),
                                     "standard output cannot be written: is its disk full?");
}

/// Throws numeric_error where a training came to nothing although it ended: its loss is no number, every step was
/// skipped, or it is twice as bad as guessing among `classes`.
inline void check_learned(double loss, double log_classes, bool all_skipped) {
  dovetail::require<dovetail::numeric_error>(
      !all_skipped && loss <= 2 * log_classes, "diverged: the loss on held-out data is ", loss, ", guessing has ",
      log_classes, all_skipped ? ", and every step was skipped" : "", ": lower the learning rate");
}

}  // namespace examples
