// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>

namespace dovetail::sync {

/// What a rank of a session does.
enum class role : std::uint8_t {
  trains,  ///< computes gradients
  serves,  ///< keeps weights for others: calls serve() in place of a loop
};

}  // namespace dovetail::sync
