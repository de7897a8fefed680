// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules built for the plainest processor (rules/part.cpp, quickly optimized), with wider loops to choose from, and
// for one with AVX2 and fused multiply-adds: the first two give the same bits, the third differs by rounding only.
#include "levels.hpp"

#include <cmath>

#include <doctest/doctest.h>

#include "rules/known.hpp"

namespace levels {
namespace {
/// For any processor, and nothing else.
ways baseline() {
  ways all;
  for (auto const& r : known::all()) {
    known::recipe recipe;
    if (r->field("weight_decay")) recipe.unchecked.push_back({"weight_decay", 0.02f});
    all.emplace_back(r->name, after(r->any(recipe), 10));
  }
  return all;
}
}  // namespace
}  // namespace levels

TEST_CASE("the wider loops that a program chooses at run time give the same bits") {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2")) {
    MESSAGE("skipped: this processor has no AVX2");
    return;
  }
  auto const narrow = levels::baseline(), wide = levels::dispatched();
  REQUIRE(narrow.size() == wide.size());
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    CAPTURE(narrow[i].first);
    CHECK(narrow[i].first == wide[i].first);
    CHECK(narrow[i].second == wide[i].second);
  }
}

TEST_CASE("rules built for wide registers agree with those built for narrow ones") {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    MESSAGE("skipped: this processor has no AVX2 with FMA");
    return;
  }
  auto const narrow = levels::baseline(), wide = levels::avx2();
  REQUIRE(narrow.size() == wide.size());
  bool all_equal = true;
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    CAPTURE(narrow[i].first);
    auto const &a = narrow[i].second, &b = wide[i].second;
    double worst = 0;
    for (std::size_t k = 0; k < a.size(); ++k) worst = std::max(worst, static_cast<double>(std::abs(a[k] - b[k])));
    CHECK(worst <= 2e-6);
    all_equal = all_equal && a == b;
  }
  CHECK(!all_equal);  // fused multiply-adds round once: they really ran
}
