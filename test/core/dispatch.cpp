// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The level of kernels on processors that this machine is not. A program of its own: it has the header ask this file
// what the processor supports.
#include <algorithm>
#include <cstddef>
#include <set>
#include <string>

#include <doctest/doctest.h>

namespace {
std::set<std::string> supported;
}
#define __builtin_cpu_init() void()
#define __builtin_cpu_supports(name) (supported.count(name) > 0)
#include <dovetail/core/dispatch.hpp>

using namespace dovetail;

namespace {

/// The instruction sets of a level's target region.
std::set<std::string> sets(std::string const& text) {
  std::set<std::string> all;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = std::min(text.find(',', at), text.size());
    all.insert(text.substr(at, end - at));
    at = end + 1;
  }
  return all;
}

TEST_CASE("a level is taken where the processor has every instruction set that it is compiled for") {
  auto const avx2 = sets(DOVETAIL_AVX2), avx512 = sets(DOVETAIL_AVX512);
  supported = {};
  CHECK(supported_cpu_level() == cpu_level::baseline);
  supported = avx2;
  CHECK(supported_cpu_level() == cpu_level::avx2);
  supported = avx512;
  CHECK(supported_cpu_level() == cpu_level::avx512);
  for (auto const& missing : avx512) {
    CAPTURE(missing);
    supported = avx512;
    supported.erase(missing);
    CHECK(supported_cpu_level() == (avx2.count(missing) ? cpu_level::baseline : cpu_level::avx2));
  }
}

}  // namespace
