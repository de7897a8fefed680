// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The statistics of ./run bench: a claim fails only beyond noise.
#include "../../bench/paired.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include <dovetail/core/philox.hpp>

#include <doctest/doctest.h>

namespace core_claims {

using bench::paired_ratio;
using verdict = paired_ratio::verdict;

TEST_CASE("the bounds of the median are the order statistics of the sign test") {
  std::vector<double> const one(50, 1.0);
  auto const of = [&](std::size_t n) {
    std::vector<double> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<double>((7 * i) % n + 1);  // 1 … n, shuffled
    return paired_ratio::of(v, one);
  };
  // Tables of the sign test, 5 % on one side: n and the rank of the bound.
  for (auto const& [n, rank] :
       {std::pair{5u, 1u}, {6u, 1u}, {8u, 2u}, {9u, 2u}, {11u, 3u}, {13u, 4u}, {15u, 4u}, {20u, 6u}, {25u, 8u}}) {
    CAPTURE(n);
    auto const r = of(n);
    CHECK(r.low == static_cast<double>(rank));
    CHECK(r.high == static_cast<double>(n + 1 - rank));
    CHECK(r.median == static_cast<double>(n + 1) / 2);
  }
  CHECK(of(1).low == 1);
  CHECK(of(2).low == 1);
  CHECK(of(2).high == 2);
  CHECK(paired_ratio::of({}, {}).pairs == 0);
  CHECK(paired_ratio::of({3, 3, 3}, {2, 2}).pairs == 2);
}

TEST_CASE("a claim that is missed by noise is within noise, one that is missed by its size fails") {
  std::vector<double> fast, reference;
  for (std::uint64_t i = 0; i < 9; ++i) {
    // The machine becomes three times slower half way: both sides do.
    double const weather = i < 5 ? 1 : 3;
    double const noise = 0.04 * (static_cast<double>(dovetail::random_stream{7}.uniform(i)) - 0.5);
    reference.push_back(weather);
    fast.push_back(weather * (0.84 + noise));
  }
  auto const r = paired_ratio::of(fast, reference);
  CHECK(std::abs(r.median - 0.84) < 0.02);
  CHECK(r.at_most(0.9) == verdict::holds);
  CHECK(r.at_most(r.median - 0.5 * (r.median - r.low)) == verdict::within_noise);
  CHECK(r.at_most(0.8) == verdict::does_not);
  // True ratio 1, bound 1: the claim must hardly ever fail.
  int failed = 0;
  for (std::uint64_t trial = 0; trial < 2000; ++trial) {
    dovetail::random_stream const random{11, static_cast<std::uint32_t>(trial)};
    for (std::uint64_t i = 0; i < 9; ++i) fast[i] = reference[i] * (0.9 + 0.2 * static_cast<double>(random.uniform(i)));
    failed += paired_ratio::of(fast, reference).at_most(1) == verdict::does_not;
  }
  CHECK(failed < 80);  // 2 % of 2000 are 40
  CHECK(failed > 10);
}

}  // namespace core_claims
