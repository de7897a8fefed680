// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/core/half.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/simd_power.hpp>

#include <cmath>
#include <cstring>
#include <limits>

#include <doctest/doctest.h>

namespace core_numbers {

using namespace dovetail;

// Random123's known-answer vectors for philox4x32-10.
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
              std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
              std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

TEST_CASE("streams differ by seed, tensor, step and rank, and lie in [0, 1)") {
  random_stream const s{1, 2, 3, 4};
  CHECK(s.word(5) == random_stream{1, 2, 3, 4}.word(5));
  CHECK(s.word(5) != random_stream{2, 2, 3, 4}.word(5));
  CHECK(s.word(5) != random_stream{1, 3, 3, 4}.word(5));
  CHECK(s.word(5) != random_stream{1, 2, 4, 4}.word(5));
  CHECK(s.word(5) != random_stream{1, 2, 3, 5}.word(5));
  double mean = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    float const u = s.uniform(i);
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    mean += u / 1e4;
  }
  CHECK(mean == doctest::Approx(0.5).epsilon(0.02));
}

TEST_CASE("every fp16 and bf16 survives a trip through float") {
  for (std::uint32_t u = 0; u < 0x10000; ++u) {
    fp16 h{};
    h.bits = static_cast<std::uint16_t>(u);
    float const f = static_cast<float>(h);
    if (std::isnan(f))
      CHECK(std::isnan(static_cast<float>(fp16(f))));
    else
      CHECK(fp16(f).bits == h.bits);
    bf16 b{};
    b.bits = static_cast<std::uint16_t>(u);
    float const g = static_cast<float>(b);
    if (std::isnan(g))
      CHECK(std::isnan(static_cast<float>(bf16(g))));
    else
      CHECK(bf16(g).bits == b.bits);
  }
}

TEST_CASE("conversion rounds to nearest even, overflows to infinity and reaches the denormals") {
  CHECK(static_cast<float>(fp16(1.0f + 0x1p-11f)) == 1.0f);                     // tie to even
  CHECK(static_cast<float>(fp16(1.0f + 3 * 0x1p-11f)) == 1.0f + 2 * 0x1p-10f);  // tie to even, up
  CHECK(static_cast<float>(fp16(65519.0f)) == 65504.0f);
  CHECK(std::isinf(static_cast<float>(fp16(65520.0f))));
  CHECK(static_cast<float>(fp16(0x1p-24f)) == 0x1p-24f);
  CHECK(static_cast<float>(fp16(0x1p-25f)) == 0.0f);
  CHECK(static_cast<float>(fp16(std::nextafter(0x1p-25f, 1.0f))) == 0x1p-24f);
  CHECK(std::signbit(static_cast<float>(fp16(-0.0f))));
  CHECK(static_cast<float>(bf16(1.0f + 0x1p-8f)) == 1.0f);
  CHECK(std::isinf(static_cast<float>(bf16(std::numeric_limits<float>::max()))));
#if defined(__FLT16_MAX__) && defined(__SSE2__)
  for (std::uint32_t i = 0; i < 200000; ++i) {  // against the compiler's own conversion
    std::uint32_t const u = random_stream{7}.word(i);
    float f;
    std::memcpy(&f, &u, 4);
    if (std::isnan(f)) continue;
    _Float16 const expected = static_cast<_Float16>(f);
    std::uint16_t bits;
    std::memcpy(&bits, &expected, 2);
    REQUIRE(fp16(f).bits == bits);
  }
#endif
}

TEST_CASE("powers of positive numbers, one element or a register of them") {
  double worst = 0;
  for (float p : {0.125f, 0.25f, 0.5f, 0.75f, 1.0f, 1.5f, 2.0f})
    for (int e = -125; e <= 127; ++e)
      for (float m : {1.0f, 1.1f, 1.3332f, 1.3334f, 1.4142135f, 1.7f, 1.9999999f}) {
        float const x = std::ldexp(m, e);
        double const expected = std::pow(static_cast<double>(x), static_cast<double>(p));
        if (expected > 1e38 || expected < 1.2e-38) continue;
        double const allowed = 3e-7 + 1e-7 * std::abs(static_cast<double>(p) * std::log2(static_cast<double>(x)));
        double const error = std::abs(static_cast<double>(simd::pow(x, p)) / expected - 1);
        worst = std::max(worst, error / allowed);
      }
  CHECK(worst < 1);
  float const infinity = std::numeric_limits<float>::infinity();
  for (float p : {0.25f, 0.3f, 0.5f, 1.0f}) {
    CHECK(simd::pow(0.0f, p) == 0);
    CHECK(simd::pow(-2.0f, p) == 0);
    CHECK(simd::pow(1.0f, p) == 1);
    CHECK(simd::pow(infinity, p) >= 4.29e9f);
    CHECK(std::isnan(simd::pow(std::numeric_limits<float>::quiet_NaN(), p)));
  }
  CHECK(simd::pow(1e-40f, 0.3f) == 0);
  CHECK(simd::pow(1e-40f, 0.25f) == doctest::Approx(1e-10));

  float x[simd::pack::lanes], y[simd::pack::lanes];
  for (int i = 0; i < 200; ++i) {
    for (int k = 0; k < simd::pack::lanes; ++k)
      x[k] = k == 1 ? 0.0f : std::ldexp(1 + static_cast<float>(k) / 16, i - 100);
    for (float p : {0.25f, 0.3f}) {
      simd::pow(simd::pack::load(x), p).store(y);
      for (int k = 0; k < simd::pack::lanes; ++k) CHECK(y[k] == simd::pow(x[k], p));
    }
  }
}

}  // namespace core_numbers
