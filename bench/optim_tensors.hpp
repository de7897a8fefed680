// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

// What the benchmarks of optimizers step over.
namespace bench {

inline constexpr std::size_t parameters = std::size_t{1} << 24;  // 64 MiB an array: AdamW walks over 256 MiB

inline void fill(std::span<float> x, std::uint32_t stream) {
  std::uint32_t s = stream * 2654435761u + 1;
  for (float& v : x) {
    s = s * 1664525u + 1013904223u;
    v = static_cast<float>(s >> 8) * 0x1p-24f - 0.5f;
  }
}

inline dovetail::arena flat() {
  dovetail::arena a({{"w", {static_cast<std::int64_t>(parameters)}}});
  fill(a.weights(), 1);
  fill(a.gradients(), 2);
  return a;
}

/// 1000 tensors as in a convolutional network: most are small, a few hold most of the elements. In one arena, or each
/// in memory of its own.
struct thousand {
  explicit thousand(bool in_one_arena) {
    std::vector<dovetail::arena::tensor> all;
    std::size_t left = parameters;
    dovetail::random_stream const r{3};
    for (std::uint64_t i = 0; i < 999; ++i) {
      auto const n = i % 2 ? 64 + static_cast<std::size_t>(r.uniform(i) * 2000)
                           : 1000 + static_cast<std::size_t>(r.uniform(i) * r.uniform(i + 5000) * 80000);
      all.push_back({dovetail::message("p", i), {static_cast<std::int64_t>(n)}});
      left -= n;
    }
    all.push_back({"last", {static_cast<std::int64_t>(left)}});
    if (in_one_arena) {
      arenas.emplace_back(all);
      list = arenas[0].parameters();
    } else {
      for (auto const& t : all) arenas.emplace_back(std::vector{t});
      for (auto& a : arenas) list.add(a.parameters()[0].name, a.weights(), a.gradients());
    }
    for (auto& a : arenas) {
      fill(a.weights(), 1);
      fill(a.gradients(), 2);
    }
  }
  std::vector<dovetail::arena> arenas;
  dovetail::parameter_list list;
};

}  // namespace bench
