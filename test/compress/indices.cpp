// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cmath>
#include <numeric>

#include "sparse.hpp"

#include <dovetail/compress/indices.hpp>

namespace compress_indices {

using namespace dovetail;

std::vector<std::byte> write(std::vector<std::uint32_t> const& rising, std::size_t n) {
  std::size_t const bound = compress::indices_size(n, rising.size());
  std::vector<std::byte> out(bound, std::byte{0xa5});  // what was there is overwritten
  std::size_t const bytes = compress::write_indices(rising, n, out.data());
  REQUIRE(bytes <= bound);
  out.resize(bytes);
  out.shrink_to_fit();
  return out;
}
std::vector<std::uint32_t> read(std::vector<std::byte> const& in, std::size_t n, std::size_t k) {
  compress::index_reader reader("test", in, n, k);
  std::vector<std::uint32_t> all;
  for (std::size_t i = 0; i < k; ++i) all.push_back(reader.next());
  reader.finish();
  return all;
}
/// About n · p random places.
std::vector<std::uint32_t> some(std::size_t n, double p, std::uint64_t seed) {
  random_stream const random{seed};
  std::vector<std::uint32_t> all;
  for (std::size_t i = 0; i < n; ++i)
    if (random.word(i) * 0x1p-32 < p) all.push_back(static_cast<std::uint32_t>(i));
  return all;
}

TEST_CASE("every set of up to 12 elements comes back, in no more bytes than were promised") {
  for (std::size_t n = 0; n <= 12; ++n)
    for (std::uint32_t set = 0; set < (1u << n); ++set) {
      std::vector<std::uint32_t> indices;
      for (std::uint32_t i = 0; i < n; ++i)
        if (set >> i & 1) indices.push_back(i);
      REQUIRE(read(write(indices, n), n, indices.size()) == indices);
    }
}

TEST_CASE("random, clustered, first, last and far indices come back") {
  for (std::size_t const n :
       {std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{1000}, std::size_t{100'003}})
    for (double const p : {0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0}) {
      auto const indices = some(n, p, n);
      REQUIRE(read(write(indices, n), n, indices.size()) == indices);
    }
  std::size_t const huge = 0xffffffffu;
  for (std::vector<std::uint32_t> const& indices :
       {std::vector<std::uint32_t>{0}, {0xfffffffeu}, {0, 0xfffffffeu}, {5, 6, 7, 0x80000000u, 0xfffffffdu}}) {
    auto const bytes = write(indices, huge);
    CHECK(bytes.size() < 30);
    REQUIRE(read(bytes, huge, indices.size()) == indices);
  }
  std::vector<std::uint32_t> run(5000);
  std::iota(run.begin(), run.end(), 777'000u);  // one gap of 777,000, where 199 are expected: a long row of zeros
  REQUIRE(read(write(run, 1'000'000), 1'000'000, run.size()) == run);
}

TEST_CASE("the bound is met by the worst indices, and rises with their number") {
  for (std::size_t const n : {std::size_t{1}, std::size_t{2}, std::size_t{100}, std::size_t{1001}, std::size_t{5000}}) {
    std::size_t last = 0;
    for (std::size_t k = 1; k < n; ++k) {
      std::size_t const bound = compress::indices_size(n, k);
      REQUIRE(bound >= last);
      REQUIRE(bound == compress::indices_size_up_to(n, k));
      last = bound;
    }
    REQUIRE(compress::indices_size_up_to(n, n) == last);
  }
  // All elements but one, each in a place of its own, and one far away.
  std::size_t reached = 0;
  for (std::size_t const k : {10u, 100u, 300u, 900u}) {
    std::size_t const n = 1000;
    std::vector<std::uint32_t> indices;
    for (std::size_t i = 0; i < k; ++i) indices.push_back(static_cast<std::uint32_t>(i * (n / k) + (n / k - 1)));
    std::size_t const bytes = write(indices, n).size();
    CHECK(bytes <= compress::indices_size(n, k));
    reached += bytes + 4 >= compress::indices_size(n, k);
  }
  CHECK(reached > 0);
}

TEST_CASE("random indices take a few hundredths of a bit more than their entropy") {
  std::size_t const n = 2'000'000;
  for (double const p : {0.001, 0.01, 0.05, 0.2, 0.5}) {
    auto const indices = some(n, p, 5);
    double const bits = 8 * static_cast<double>(write(indices, n).size()) / static_cast<double>(indices.size());
    double const entropy = (-p * std::log2(p) - (1 - p) * std::log2(1 - p)) / p;
    MESSAGE("density ", p, ": ", bits, " bits an index, entropy ", entropy);
    CHECK(bits < 1.045 * entropy + 0.01);
  }
}

TEST_CASE("damaged indices are refused or rise below n") {
  for (std::size_t const n : {std::size_t{40}, std::size_t{3000}})
    for (double const p : {0.1, 0.3, 0.7}) {
      auto const indices = some(n, p, 11);
      auto const good = write(indices, n);
      random_stream const random{17};
      int refused = 0;
      auto const attempt = [&](std::vector<std::byte> bytes, std::size_t k) {
        bytes.shrink_to_fit();
        try {
          auto const all = read(bytes, n, k);
          REQUIRE(all.size() == k);
          REQUIRE(std::is_sorted(all.begin(), all.end()));
          REQUIRE(std::adjacent_find(all.begin(), all.end()) == all.end());
          REQUIRE((all.empty() || all.back() < n));
        } catch (input_error const&) {
          ++refused;
        }
      };
      for (std::size_t size = 0; size < good.size(); ++size)
        attempt({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)}, indices.size());
      CHECK(refused == static_cast<int>(good.size()));
      for (std::size_t k : {std::size_t{0}, std::size_t{1}, indices.size() - 1, indices.size() + 1, n - 1, n, n + 1}) {
        if (k == indices.size()) continue;
        int const before = refused;
        attempt(good, k);
        CHECK(refused == before + 1);
      }
      for (std::uint64_t t = 0; t < 3000; ++t) {
        auto bytes = good;
        bytes[random.word(2 * t) % bytes.size()] ^= static_cast<std::byte>(1u << (random.word(2 * t + 1) % 8));
        attempt(bytes, indices.size());
        for (std::size_t i = 0; i < bytes.size(); ++i)
          bytes[i] = static_cast<std::byte>(random.word(9000 + t * 91 + i));
        if (t % 2) bytes[0] = static_cast<std::byte>(t / 2 % 33);
        attempt(bytes, indices.size());
        std::fill(bytes.begin() + 1, bytes.end(), std::byte{0});  // a row of zeros without an end
        attempt(bytes, indices.size());
      }
    }
  std::vector<std::byte> form(3, std::byte{0});
  form[0] = std::byte{32};
  CHECK_THROWS_WITH_AS(compress::check_indices("codec", form, 100, 2),
                       "codec: the indices of 2 elements of 100 have a form that there is not: the payload is damaged",
                       input_error);
  CHECK_THROWS_WITH_AS(compress::check_indices("codec", {}, 100, 2),
                       "codec: the indices of 2 elements of 100 are missing: the payload is damaged", input_error);
}

TEST_CASE("the bytes are these, on every processor") {
  // With r = 6 the gaps 5, 299 and 0 are 1 and 5, four zeros, 1 and 43, 1 and 0: 25 bits.
  std::vector<std::byte> const three{std::byte{6}, std::byte{0x0b}, std::byte{0xb8}, std::byte{0x06}, std::byte{0}};
  CHECK(write({5, 305, 306}, 1000) == three);
  // With r = 1 the gaps 1 and 1 are 1 and 1 each.
  CHECK(write({1, 3}, 16) == std::vector<std::byte>{std::byte{1}, std::byte{0x0f}});
  // A bitmap is shorter where every other element is sent.
  CHECK(write({0, 2, 4, 6, 7, 9}, 10) == std::vector<std::byte>{std::byte{255}, std::byte{0xd5}, std::byte{0x02}});
}

}  // namespace compress_indices
