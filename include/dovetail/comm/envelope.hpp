// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

namespace dovetail::comm {

/// Of a message that may be from whomever, or have any tag.
inline constexpr int any_rank = -1, any_tag = -1;

/// What is known of a message before it is received.
struct envelope {
  int from = any_rank;
  int tag = any_tag;
  std::size_t bytes = 0;
  friend constexpr bool operator==(envelope const&, envelope const&) = default;
};

}  // namespace dovetail::comm
