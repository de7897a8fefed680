// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <dovetail/core/philox.hpp>

namespace dovetail::data {

/// Writes the order in which epoch `epoch` visits n samples: a pure function of (n, seed, epoch), the same on every
/// rank and after every restart, so there is no shuffle state to save. Fisher-Yates over Philox words. Orders of
/// another `rank` are independent of it.
inline void epoch_order(std::int64_t n, std::uint64_t seed, std::int64_t epoch, bool shuffle,
                        std::vector<std::int64_t>& order, std::uint32_t rank = 0) {
  order.resize(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  if (!shuffle) return;
  // A tensor number that no model uses: noise drawn from the same seed stays independent of the order.
  random_stream const random{seed, 0xffff'da7au, static_cast<std::uint64_t>(epoch), rank};
  for (std::size_t i = order.size(); i-- > 1;) {
    // 64 bits a draw: the modulo's bias is below 2^-30 for any n that fits in memory.
    auto const w = random.words(static_cast<std::uint32_t>(i / 2));
    std::size_t const at = i % 2 * 2;
    std::uint64_t const draw = (static_cast<std::uint64_t>(w[at]) << 32) | w[at + 1];
    std::swap(order[i], order[draw % (i + 1)]);
  }
}

}  // namespace dovetail::data
