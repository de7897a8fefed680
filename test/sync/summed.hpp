// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <dovetail/core/shard.hpp>
#include <dovetail/io/saved_state.hpp>

namespace test {

/// Of everything that is named "rank<r>.<…>.<name>" or "rank<r>.<…>.<name>@<…>", the sum over ranks, by bucket and
/// element: what state_kind::summed is to conserve.
inline std::map<std::string, std::vector<double>> sums_of(dovetail::io::saved_state const& s, std::string const& name,
                                                          int ranks) {
  std::map<std::string, std::vector<double>> sums;
  for (auto const& [full, piece] : s.pieces()) {
    auto const dot = full.find('.'), at = full.find('@');
    auto const whole = full.substr(0, at);
    if (!full.starts_with("rank") || !whole.ends_with("." + name)) continue;
    auto& sum = sums[whole.substr(dot + 1)];
    std::size_t first = 0;
    if (at != std::string::npos && full.substr(at) != "@sum") first = std::stoul(full.substr(at + 1));
    if (full.ends_with("@sum"))  // behind all "@<number>" of its rank, so that the size is known
      first = dovetail::shard(sum.size(), ranks, std::stoi(full.substr(4))).begin;
    sum.resize(std::max(sum.size(), first + piece.bytes.size() / sizeof(float)));
    for (std::size_t i = 0; i < piece.bytes.size() / sizeof(float); ++i) {
      float x = 0;
      std::memcpy(&x, piece.bytes.data() + i * sizeof x, sizeof x);
      sum[first + i] += static_cast<double>(x);
    }
  }
  return sums;
}

}  // namespace test
