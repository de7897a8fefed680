// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "everything.hpp"

std::size_t second_shard(std::size_t n);

int main() {
  // One inline function, asked for in both: whichever copy the linker kept must serve both.
  return dovetail::shard(10, 3, 0).size() == second_shard(10) ? 0 : 1;
}
