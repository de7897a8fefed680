// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <cstring>

#include <doctest/doctest.h>

namespace compress_sign {

using namespace dovetail;

TEST_CASE("sign decodes to the mean magnitude of the block with each element's sign") {
  for (std::size_t const block : {std::size_t{0}, std::size_t{16}, std::size_t{64}, std::size_t{4096}})
    for (std::size_t const n :
         {1u, 7u, 8u, 9u, 15u, 16u, 17u, 63u, 64u, 65u, 128u, 300u, 4095u, 4096u, 4097u, 10000u}) {
      compress::sign const codec{.block = block};
      auto const x = test::normal(n, n);
      auto const out = test::decode(codec, test::encode(codec, x), n);
      std::size_t const length = block ? block : n;
      for (std::size_t first = 0; first < n; first += length) {
        std::size_t const last = std::min(n, first + length);
        double mean = 0;
        for (std::size_t i = first; i < last; ++i) mean += std::fabs(static_cast<double>(x[i]));
        mean /= static_cast<double>(last - first);
        for (std::size_t i = first; i < last; ++i) {
          REQUIRE(std::fabs(out[i]) == doctest::Approx(mean).epsilon(1e-6));
          REQUIRE(std::signbit(out[i]) == std::signbit(x[i]));
        }
      }
    }
}

TEST_CASE("the signs of zeros cancel instead of all becoming +1") {
  std::vector<float> x(1000, 0.0f);
  for (std::size_t i = 0; i < 1000; i += 3) x[i] = -0.0f;
  x[500] = 1000;
  auto const out = test::decode(compress::sign{}, test::encode(compress::sign{}, x), 1000);
  float sum = 0;
  for (std::size_t i = 0; i < 1000; ++i)
    if (i != 500) sum += out[i];
  CHECK(std::fabs(sum) <= 1);
}

TEST_CASE("the mean of large magnitudes does not overflow on the way, and that of small ones does not vanish") {
  std::vector<float> x(5000, 0x1p127f);
  CHECK(test::decode(compress::sign{}, test::encode(compress::sign{}, x), 5000)[7] == 0x1p127f);
  std::fill(x.begin(), x.end(), -0x1p-149f);
  CHECK(test::decode(compress::sign{}, test::encode(compress::sign{}, x), 5000)[7] == -0x1p-149f);
}

TEST_CASE("sign refuses negative scales and bits behind the last element, and lets non-finite scales pass") {
  std::vector<float> const x(9, 2.0f);
  auto const good = test::encode(compress::sign{}, x);
  REQUIRE(good.size() == 6);
  auto bad = good;
  bad[5] |= std::byte{2};
  CHECK_THROWS_AS(test::decode(compress::sign{}, bad, 9), input_error);
  for (float const scale : {-1.0f, -0.0f, -test::not_a_number}) {
    bad = good;
    std::memcpy(bad.data(), &scale, 4);
    CHECK_THROWS_AS(test::decode(compress::sign{}, bad, 9), input_error);
  }
  for (float const scale : {test::infinity, test::not_a_number}) {
    bad = good;
    std::memcpy(bad.data(), &scale, 4);
    CHECK_FALSE(std::isfinite(test::decode(compress::sign{}, bad, 9)[3]));
  }
}

}  // namespace compress_sign
