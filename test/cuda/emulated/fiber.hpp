// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include "context.hpp"

namespace emulated {

/// A function with a stack of its own, which can stop in the middle. One runs at a time. The sanitizers are told.
class fiber {
 public:
  /// `main` never returns; it begins with the first resume.
  explicit fiber(void (*main)());
  ~fiber();
  fiber(fiber const&) = delete;

  /// Goes on where the fiber stopped; returns when it stops again. Not from within a fiber.
  void resume();
  /// Stops the fiber that calls it.
  static void suspend();

 private:
  static void begin();
  void (*main_)();
  std::byte* stack_;
  context here_{};
  [[maybe_unused]] void* fake_stack_ = nullptr;  // the sanitizers' own, and so is the next
  [[maybe_unused]] void* tsan_ = nullptr;
};

}  // namespace emulated
