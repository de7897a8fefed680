// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The loops of all collectives on every half there is, at every level that this processor has.
#include <cstring>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/half.hpp>

using namespace dovetail;
using comm::reduction;

namespace {

template <class T, reduction How>
void check() {
  namespace loops = comm::detail;
  constexpr std::size_t n = 65536 + 13;
  std::vector<T> a(n), b(n), expected(n);
  for (std::size_t i = 0; i < n; ++i) {
    a[i].bits = static_cast<std::uint16_t>(i);
    b[i].bits = static_cast<std::uint16_t>(i * 40503u >> 3);
    auto const x = static_cast<float>(a[i]), y = static_cast<float>(b[i]);
    expected[i] = T(How == reduction::sum ? x + y : How == reduction::min ? (y < x ? y : x) : (x < y ? y : x));
  }
  auto const bytes = [](std::vector<T>& v) { return reinterpret_cast<std::byte*>(v.data()); };
  std::byte const* const sources[]{bytes(a), bytes(b)};

  std::vector<std::pair<comm::ordered_reduce, std::size_t>> ways{
      {comm::reducer<T>(How), n}, {loops::baseline::reduce_lines<T, How, 1, 2>, 65536 * sizeof(T)}};
#if DOVETAIL_X86_LEVELS
  if (supported_cpu_level() >= cpu_level::avx2)
    ways.push_back({loops::avx2::reduce_lines<T, How, 1, 2>, 65536 * sizeof(T)});
  if (supported_cpu_level() >= cpu_level::avx512)
    ways.push_back({loops::avx512::reduce_lines<T, How, 1, 2>, 65536 * sizeof(T)});
#endif
  for (std::size_t way = 0; way < ways.size(); ++way) {
    std::vector<T> out(n);
    std::byte* const outs[]{bytes(out)};
    ways[way].first(outs, 1, sources, 2, ways[way].second);
    for (std::size_t i = 0; i < (way == 0 ? n : 65536); ++i) {
      if (is_nan(out[i]) && is_nan(expected[i])) continue;  // of two, either may stay
      REQUIRE_MESSAGE(out[i] == expected[i], "way ", way, ", element ", i);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("halves are combined as one by one, at every level", T, fp16, bf16) {
  check<T, reduction::sum>();
  check<T, reduction::min>();
  check<T, reduction::max>();
}
