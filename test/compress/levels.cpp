// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every cpu_level gives the same bits, whatever the input and its length.
#include "tools.hpp"

#include <cstring>

#include <doctest/doctest.h>

namespace compress_levels {

using namespace dovetail;
using compress::kernels::kernel_set;

namespace {

std::vector<cpu_level> other_levels() {
  std::vector<cpu_level> levels;
  for (auto const level : {cpu_level::avx2, cpu_level::avx512})
    if (level <= supported_cpu_level()) levels.push_back(level);
  return levels;
}

// NaN payloads of sums of two NaNs are the processor's choice; all else is compared by bits.
bool same(std::vector<float> const& a, std::vector<float> const& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
        !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

struct results {
  std::vector<std::byte> fp16, bf16, signs, selected, with_residual;
  std::vector<float> sums, residual, added;
  double magnitude = 0;
  bool finite = false;
};

results run(kernel_set const& kernel, std::vector<float> const& x, std::vector<float> const& residual) {
  std::size_t const n = x.size();
  results r{std::vector<std::byte>(2 * n),
            std::vector<std::byte>(2 * n),
            std::vector<std::byte>((n + 7) / 8),
            {},
            {},
            residual,
            residual,
            std::vector<float>(n)};
  kernel.to_fp16(x.data(), n, r.fp16.data());
  kernel.to_bf16(x.data(), n, r.bf16.data());
  r.magnitude = kernel.to_signs(x.data(), n, r.signs.data());
  r.finite = kernel.all_finite(x.data(), n);
  kernel.add_fp16(r.fp16.data(), n, 0.3f, r.sums.data());
  kernel.add_bf16(r.bf16.data(), n, -0.7f, r.sums.data());
  kernel.add_float(reinterpret_cast<std::byte const*>(x.data()), n, 1.1f, r.sums.data());
  kernel.add_signs(r.signs.data(), n, 0.123f, r.sums.data());
  compress::top_k const codec{.ratio = 0.03f};
  r.selected.resize(codec.wire_size(n));
  r.with_residual.resize(codec.wire_size(n));
  compress::top_k::state s;
  codec.select({x, {}}, nullptr, nullptr, s, r.selected, kernel);
  std::vector<float> before = r.residual;
  codec.select({x, {}}, before.data(), r.residual.data(), s, r.with_residual, kernel);
  kernel.add_to(x.data(), before.data(), n, r.added.data());
  return r;
}

void check(std::vector<float> const& x, std::vector<float> const& residual) {
  auto const a = run(compress::kernels::at(cpu_level::baseline), x, residual);
  for (auto const level : other_levels()) {
    CAPTURE(static_cast<int>(level));
    CAPTURE(x.size());
    auto const b = run(compress::kernels::at(level), x, residual);
    REQUIRE(a.fp16 == b.fp16);
    REQUIRE(a.bf16 == b.bf16);
    REQUIRE(a.signs == b.signs);
    REQUIRE((a.magnitude == b.magnitude || (std::isnan(a.magnitude) && std::isnan(b.magnitude))));
    REQUIRE(a.finite == b.finite);
    REQUIRE(same(a.sums, b.sums));
    REQUIRE(a.selected == b.selected);
    REQUIRE(a.with_residual == b.with_residual);
    REQUIRE(same(a.residual, b.residual));
    REQUIRE(same(a.added, b.added));
  }
}

}  // namespace

TEST_CASE("every level gives the same bits for ordinary values") {
  MESSAGE("widest level of this machine: ", static_cast<int>(supported_cpu_level()));
  for (std::size_t n = 0; n <= 100; ++n) check(test::normal(n, n), test::normal(n, n + 1000));
  for (std::size_t const n : {4095u, 4096u, 4097u, 20'011u, 100'000u})
    check(test::normal(n, n), test::normal(n, n + 1));
}

TEST_CASE("every level gives the same bits for any bits") {
  for (std::size_t const n : {1u, 15u, 17u, 33u, 5000u, 70'003u}) check(test::any_bits(n, n), test::normal(n, n + 1));
}

TEST_CASE("every level converts every half and its neighbors alike") {
  std::vector<float> x;
  for (std::uint32_t u = 0; u < 0x10000; ++u) {
    fp16 h{};
    h.bits = static_cast<std::uint16_t>(u);
    float const f = static_cast<float>(h);
    for (int step : {-1, 0, 1, 0xfff, 0x1000, 0x1001})
      x.push_back(std::bit_cast<float>(std::bit_cast<std::uint32_t>(f) + static_cast<std::uint32_t>(step)));
  }
  check(x, std::vector<float>(x.size(), 1.0f));
}

TEST_CASE("the kernels convert as the scalar types do, and see one bad element anywhere") {
  auto const x = test::any_bits(3000, 5);
  for (int level = 0; level <= static_cast<int>(supported_cpu_level()); ++level) {
    auto const& kernel = compress::kernels::at(static_cast<cpu_level>(level));
    auto const r = run(kernel, x, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::uint16_t h, b;
      std::memcpy(&h, r.fp16.data() + 2 * i, 2);
      std::memcpy(&b, r.bf16.data() + 2 * i, 2);
      REQUIRE(h == fp16(x[i]).bits);
      REQUIRE(b == bf16(x[i]).bits);
    }
    REQUIRE(kernel.all_finite(nullptr, 0));
    for (std::size_t n = 1; n < 70; ++n)
      for (std::size_t at = 0; at < n; ++at) {
        std::vector<float> y(n, std::numeric_limits<float>::max());
        REQUIRE(kernel.all_finite(y.data(), n));
        y[at] = at % 2 ? -test::infinity : test::not_a_number;
        REQUIRE_FALSE(kernel.all_finite(y.data(), n));
      }
  }
}

}  // namespace compress_levels
