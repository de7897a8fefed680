// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The loops of all collectives on every half there is, at every level that this processor has.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/half.hpp>

namespace comm_reduce {

using namespace dovetail;
using comm::reduction;

namespace {

template <reduction How>
float combined(float x, float y) {
  return How == reduction::sum ? x + y : How == reduction::min ? (y < x ? y : x) : (x < y ? y : x);
}

/// The loops for so many outs and sources, 0: for any, of all levels.
template <class T, reduction How, std::size_t Outs, std::size_t Sources>
void add_levels(std::vector<comm::ordered_reduce>& ways) {
  namespace loops = comm::detail;
  ways.push_back(loops::baseline::reduce_lines<T, How, Outs, Sources>);
#if DOVETAIL_X86_LEVELS
  if (supported_cpu_level() >= cpu_level::avx2) ways.push_back(loops::avx2::reduce_lines<T, How, Outs, Sources>);
  if (supported_cpu_level() >= cpu_level::avx512) ways.push_back(loops::avx512::reduce_lines<T, How, Outs, Sources>);
#endif
}

template <class T, reduction How>
void check(std::size_t out_count, std::size_t source_count) {
  CAPTURE(out_count);
  CAPTURE(source_count);
  constexpr std::size_t n = 65536 + 13;
  std::uint32_t const factors[]{1 << 3, 40503u, 25717u};
  std::vector<std::vector<T>> in(source_count, std::vector<T>(n)), out(out_count, std::vector<T>(n));
  std::vector<T> expected(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t s = 0; s < source_count; ++s)
      in[s][i].bits = static_cast<std::uint16_t>(static_cast<std::uint32_t>(i) * factors[s] >> 3);
    auto value = static_cast<float>(in[0][i]);
    for (std::size_t s = 1; s < source_count; ++s) value = combined<How>(value, static_cast<float>(in[s][i]));
    expected[i] = T(value);
  }
  auto const bytes = [](std::vector<T>& v) { return reinterpret_cast<std::byte*>(v.data()); };
  std::vector<std::byte const*> sources;
  std::vector<std::byte*> outs;
  for (auto& v : in) sources.push_back(bytes(v));
  for (auto& v : out) outs.push_back(bytes(v));

  std::vector<comm::ordered_reduce> ways{comm::reducer<T>(How)};  // of n elements; others of lines
  add_levels<T, How, 0, 0>(ways);
  if (source_count == 2 && out_count == 1) add_levels<T, How, 1, 2>(ways);
  if (source_count == 2 && out_count == 2) add_levels<T, How, 2, 2>(ways);
  for (std::size_t way = 0; way < ways.size(); ++way) {
    for (auto& v : out) std::fill(v.begin(), v.end(), T(7.0f));
    std::size_t const whole = way == 0 ? n : 65536;
    ways[way](outs.data(), out_count, sources.data(), source_count, way == 0 ? n : whole * sizeof(T));
    for (auto const& v : out) {
      std::size_t i = 0;  // of two NaN, either may stay
      while (i < whole && (v[i] == expected[i] || (is_nan(v[i]) && is_nan(expected[i])))) ++i;
      REQUIRE_MESSAGE(i == whole, "way ", way, ", element ", i);
    }
  }
}

template <class T, reduction How>
void check() {
  for (std::size_t sources = 1; sources <= 3; ++sources)
    for (std::size_t outs = 1; outs <= 3; ++outs) check<T, How>(outs, sources);
}

}  // namespace

TEST_CASE_TEMPLATE("halves are combined as one by one, at every level", T, fp16, bf16) {
  check<T, reduction::sum>();
  check<T, reduction::min>();
  check<T, reduction::max>();
}

}  // namespace comm_reduce
