// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <functional>
#include <utility>

namespace dovetail::comm {

/// Says that a rank is alive and in code of its own: made by `away()` of every communicator. While it lives, and for
/// one more deadline afterwards, the others wait for the rank instead of declaring it lost. That the rank throws,
/// returns or that its process ends is noticed all the same. Guards may be nested; they may outlive the communicator.
class [[nodiscard]] away_guard {
 public:
  away_guard() = default;  ///< of a rank that nobody waits for
  explicit away_guard(std::function<void()> back) : back_(std::move(back)) {}
  away_guard(away_guard&& other) noexcept : back_(std::exchange(other.back_, nullptr)) {}
  away_guard& operator=(away_guard&& other) noexcept {
    std::swap(back_, other.back_);
    return *this;
  }
  ~away_guard() {
    if (back_) back_();
  }

 private:
  std::function<void()> back_;  // must not throw
};

}  // namespace dovetail::comm
