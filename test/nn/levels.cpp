// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The loops that are compiled for several processors, and products with a matrix that is prepared once.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/nn/cells.hpp>
#include <dovetail/nn/onednn/host.hpp>

namespace nn_levels {

using namespace dovetail;

namespace {

/// Numbers of all sizes, among them those at which the exponentials end, and what is not a number.
std::vector<float> numbers(std::size_t n, std::uint32_t seed) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  constexpr float ends[]{0.f, -0.f, 0.625f, -0.62499994f, 43.5f, 87.f, -87.4f, 88.8f, -1e30f, inf, -inf, 1e-40f};
  random_stream const noise{seed};
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    auto const word = noise.word(i);
    v[i] = word % 7 == 0    ? ends[word / 7 % std::size(ends)]
           : word % 97 == 1 ? std::numeric_limits<float>::quiet_NaN()
                            : (static_cast<float>(word % 20001) - 10000.f) * 1e-3f;
  }
  return v;
}
void check_same(std::vector<float> const& a, std::vector<float> const& b) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    different += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]);
  CHECK(different == 0);
}

}  // namespace

TEST_CASE("the cells give the same bits at every level of the processor") {
  auto const level = supported_cpu_level();
  if (level == cpu_level::baseline) MESSAGE("this processor has one level: nothing is compared");
  auto const &narrow = nn::detail::cells_at(cpu_level::baseline), &wide = nn::detail::cells_at(level);
  if (level != cpu_level::baseline) REQUIRE(&narrow != &wide);
  for (std::size_t n = 1; n < 70; n += n < 20 ? 1 : 7)
    for (bool const first : {true, false}) {
      CAPTURE(n);
      std::uint32_t seed = 1;
      auto const a = numbers(4 * n, seed++), b = numbers(4 * n, seed++), c = numbers(4 * n, seed++);
      auto const d = numbers(4 * n, seed++), e = numbers(4 * n, seed++);
      auto const both = [&](auto const& f) {
        auto a1 = a, b1 = b, c1 = c, a2 = a, b2 = b, c2 = c;
        f(narrow, a1.data(), b1.data(), c1.data());
        f(wide, a2.data(), b2.data(), c2.data());
        check_same(a1, a2);
        check_same(b1, b2);
        check_same(c1, c2);
      };
      float const* const before = first ? nullptr : d.data();
      using kernels = nn::detail::cell_kernels const;
      both([&](kernels& k, float* x, float* y, float* z) { k.lstm(x, e.data(), before, y, z, n); });
      both([&](kernels& k, float* x, float* y, float*) { k.lstm_backward(x, before, e.data(), c.data(), y, n); });
      both([&](kernels& k, float* x, float* y, float* z) { k.gru(x, y, first, e.data(), c.data(), before, z, n); });
      both([&](kernels& k, float* x, float* y, float* z) { k.gru_backward(x, y, before, e.data(), z, n); });
      both([&](kernels& k, float* x, float* y, float*) {
        k.tanh(y, x, n);
        k.tanh(x, x, n);
      });
      both([&](kernels& k, float* x, float* y, float*) {
        k.sigmoid(y, x, n);
        k.sigmoid(x, x, n);
      });
    }
}

TEST_CASE("the layers' own functions are within some ulp of the exact ones, at their ends too") {
  for (float x = -86.9f; x < 86.9f; x += 0.0137f) {
    auto const pack = nn::detail::broadcast(x);
    double const e = std::exp(static_cast<double>(x));
    CHECK(std::abs(static_cast<double>(nn::detail::exp(pack)[0]) / e - 1) < 3e-7);
    CHECK(std::abs(static_cast<double>(nn::detail::sigmoid(pack)[0]) * (1 + 1 / e) - 1) < 3e-7);
    CHECK(std::abs(static_cast<double>(nn::detail::tanh(pack)[0]) / std::tanh(static_cast<double>(x)) - 1) < 3e-7);
  }
  for (float const x : {87.1f, 88.8f, 1e30f, std::numeric_limits<float>::infinity()}) {
    auto const pack = nn::detail::broadcast(x);
    CHECK(nn::detail::sigmoid(pack)[0] == 1);
    CHECK(nn::detail::sigmoid(-pack)[0] > 0);
    CHECK(nn::detail::sigmoid(-pack)[0] < 2e-38f);
    CHECK(nn::detail::tanh(pack)[0] == 1);
    CHECK(nn::detail::tanh(-pack)[0] == -1);
  }
}

TEST_CASE("as many threads come as oneDNN asks for") {
  int const before = omp_get_max_threads(), dynamic = omp_get_dynamic();
  nn::onednn::host backend;
  for (int const threads : {1, 2, 3}) {
    auto const scope = backend.use(threads);
    CHECK(omp_get_max_threads() == std::min(threads, omp_get_thread_limit()));
    CHECK(omp_get_dynamic() == 0);
  }
  CHECK(omp_get_max_threads() == before);
  CHECK(omp_get_dynamic() == dynamic);
}

TEST_CASE("a product with a prepared matrix is that of gemm") {
  auto const check = [](auto backend, std::int64_t m, std::int64_t n, std::int64_t k) {
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    random_stream const noise{5};
    auto const fill = [&](std::int64_t size, std::uint64_t from) {
      std::vector<float> v(static_cast<std::size_t>(size));
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(noise.word(from + i) % 2001) * 1e-3f - 1;
      return v;
    };
    auto const c = fill(m * n, 1u << 31);
    for (int const threads : {1, 2})
      for (bool const transposed : {false, true})
        for (bool const adds : {false, true})
          for (std::uint64_t const other : {1, 2}) {  // another B of the same size, of the same memory in part
            [[maybe_unused]] auto const scope = backend.use(threads);
            auto const b = fill(k * n, other << 32);
            auto const product = backend.repeated_gemm(transposed, m, n, k, b.data(), adds);
            for (std::uint64_t const row : {3, 4}) {
              auto const a = fill(m * k, row << 40);
              auto found = c, wanted = c;
              if (!adds) found.assign(c.size(), std::numeric_limits<float>::quiet_NaN());  // is not read
              product(a.data(), found.data());
              backend.gemm(false, transposed, m, n, k, a.data(), b.data(), adds ? 1.f : 0.f, wanted.data());
              double worst = 0;
              for (std::size_t i = 0; i < found.size(); ++i) {
                auto const off = static_cast<double>(std::abs(found[i] - wanted[i]));
                worst = off <= worst ? worst : off;  // a NaN stays
              }
              CHECK(worst < 1e-6 * std::sqrt(static_cast<double>(k)) * 10);
            }
          }
  };
  check(nn::host{}, 25, 1024, 256);
  check(nn::host{}, 1, 12, 3);
  check(nn::host{}, 3, 1, 17);
  check(nn::host{}, 33, 65, 129);
  check(nn::host{}, 2, 7, 5000);  // longer than one call
  check(nn::plain{}, 5, 12, 300);
}

}  // namespace nn_levels
