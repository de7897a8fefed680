// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Packed, chunked and sampled top-k: what they send is what top-k sends, or says.
#include <algorithm>
#include <set>

#include "sparse.hpp"

namespace compress_sparse_top_k {

using namespace dovetail;
using compress::chunked_top_k;
using compress::packed_top_k;
using compress::sampled_top_k;
using compress::top_k;

static_assert(codec<packed_top_k> && codec<chunked_top_k> && codec<sampled_top_k>);
static_assert(!packed_top_k::fixed_size && chunked_top_k::fixed_size && !sampled_top_k::fixed_size);

TEST_CASE("packed top-k decodes to what top-k decodes to, in 5 bytes where it takes 8") {
  for (std::size_t const n : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{77}, std::size_t{50'001}})
    for (float const ratio : {0.001f, 0.01f, 0.3f, 1.0f})
      for (auto const& in : test::inputs(n)) {
        packed_top_k const codec{.ratio = ratio};
        auto const packed = test::encode(codec, in.values);
        REQUIRE(packed.size() <= codec.wire_size(n));
        auto const plain = test::encode(top_k{.ratio = ratio}, in.values);
        REQUIRE(test::same_bits(test::decode(codec, packed, n), test::decode(top_k{.ratio = ratio}, plain, n)));
      }
  auto const x = test::normal(200'000, 4);
  auto const bytes = test::encode(packed_top_k{}, x).size();
  CHECK(bytes < 2000 * 5.1);
  CHECK(packed_top_k{}.wire_size(200'000) < 2000 * 5.2);
}

TEST_CASE_TEMPLATE("with error feedback decoded + residual is input + old residual, bit for bit", Codec, packed_top_k,
                   chunked_top_k, sampled_top_k) {
  for (std::size_t const n : {std::size_t{1}, std::size_t{9}, std::size_t{1001}, std::size_t{40'003}}) {
    compress::error_feedback<Codec> const codec{};
    compress::bucket const empty{std::vector<float>(n), {}};
    auto state = codec.init(empty);
    for (int step = 0; step < 8; ++step) {
      auto const g = test::normal(n, static_cast<std::uint64_t>(step));
      compress::context const where{.step = step, .seed = 2};
      std::vector<float> expected(n), both(n);
      for (std::size_t i = 0; i < n; ++i) expected[i] = state.residual[i] + g[i];
      auto const sent = test::decode_in(codec.codec, test::encode_in(codec, {g, {}}, state, where), n, where);
      for (std::size_t i = 0; i < n; ++i) both[i] = sent[i] + state.residual[i];
      REQUIRE(test::same_bits(both, expected));
    }
  }
}

TEST_CASE("chunked top-k sends the largest of each chunk, of the last one too") {
  for (auto const& [n, chunk] : std::vector<std::array<std::size_t, 2>>{
           {1, 2}, {10, 4}, {4096, 4096}, {10'000, 4096}, {5000, 100}, {70'000, 65'536}, {999, 3}})
    for (float const ratio : {0.01f, 0.25f, 1.0f})
      for (auto const& in : test::inputs(n)) {
        chunked_top_k const codec{.ratio = ratio, .chunk = static_cast<int>(chunk)};
        auto const payload = test::encode(codec, in.values);
        REQUIRE(payload.size() == codec.wire_size(n));
        auto const all = test::decode(codec, payload, n);
        for (std::size_t at = 0; at < n; at += chunk) {
          std::span<float const> const part = std::span(in.values).subspan(at, std::min(chunk, n - at));
          auto const expected =
              test::decode(top_k{.ratio = ratio}, test::encode(top_k{.ratio = ratio}, part), part.size());
          REQUIRE(test::same_bits(std::span(all).subspan(at, part.size()), expected));
          // and so a contraction of each chunk
          REQUIRE(test::distance(part, expected) <= (1 - static_cast<double>(ratio)) * test::squared(part) + 1e-6);
        }
      }
  // 12 bits an index in chunks of 4096: 41 of each.
  CHECK(chunked_top_k{}.wire_size(2 * 4096) == 82 * 4 + 123);
  CHECK(chunked_top_k{.chunk = 65'536}.wire_size(65'536) == 656 * 6);
  CHECK_THROWS_AS(static_cast<void>(chunked_top_k{.chunk = 1}.wire_size(5)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(chunked_top_k{.chunk = 65'537}.wire_size(5)), argument_error);
}

TEST_CASE("every level sends the same chunks") {
  auto const x = test::normal(30'001, 6), r = test::normal(30'001, 7);
  chunked_top_k const codec{.ratio = 0.02f};
  std::vector<std::vector<std::byte>> payloads;
  for (int level = 0; level <= static_cast<int>(supported_cpu_level()); ++level) {
    auto state = codec.init({x, {}});
    std::vector<float> residual = r, next(x.size());
    payloads.emplace_back(codec.wire_size(x.size()));
    codec.select({x, {}}, residual.data(), next.data(), state, payloads.back(),
                 compress::kernels::at(static_cast<cpu_level>(level)));
    CHECK(payloads.back() == payloads.front());
  }
}

TEST_CASE("sampled top-k sends from 0.8 k to k of the largest, and none that is smaller than one left out") {
  for (std::size_t const n : {std::size_t{1}, std::size_t{30}, std::size_t{3000}, std::size_t{100'003}})
    for (float const ratio : {0.001f, 0.01f, 0.2f})
      for (auto const& in : test::inputs(n))
        for (std::int64_t step = 0; step < 4; ++step) {
          CAPTURE(n);
          CAPTURE(in.name);
          sampled_top_k const codec{.ratio = ratio};
          compress::context const where{.step = step, .seed = 3};
          auto const payload = test::encode_in(codec, in.values, where);
          REQUIRE(payload.size() <= codec.wire_size(n));
          std::uint32_t sent;
          std::memcpy(&sent, payload.data(), 4);
          REQUIRE(sent >= codec.least(n));
          REQUIRE(sent <= codec.count(n));
          auto const all = test::decode_in(codec, payload, n, where);
          float smallest = test::infinity, left_out = 0;
          for (std::size_t i = 0; i < n; ++i) {
            if (all[i] != 0)
              smallest = std::min(smallest, std::fabs(in.values[i]));
            else
              left_out = std::max(left_out, std::fabs(in.values[i]));
          }
          REQUIRE(left_out <= smallest);
          double const d = 0.8 * static_cast<double>(codec.count(n)) / static_cast<double>(n);
          REQUIRE(test::distance(in.values, all) <= (1 - d) * test::squared(in.values) + 1e-6);
        }
}

TEST_CASE("the sample is another one in each step and rank, and of no element twice") {
  auto const x = test::normal(100'000, 2);
  sampled_top_k const codec{.ratio = 0.05f};
  std::set<std::vector<std::byte>> payloads;
  for (std::int64_t step = 0; step < 6; ++step)
    for (int rank = 0; rank < 2; ++rank)
      payloads.insert(test::encode_in(codec, x, {.step = step, .seed = 1, .rank = rank}));
  CHECK(payloads.size() > 2);  // some samples have more than k above their threshold: then the payload is top-k's
  compress::context const where{.step = 4, .seed = 1};
  CHECK(test::encode_in(codec, x, where) == test::encode_in(codec, x, where));
  // Of less than 200 elements 1 % would be one or two: all are looked through.
  auto const little = test::normal(150, 3);
  CHECK(test::same_bits(test::decode_in(sampled_top_k{.ratio = 0.1f},
                                        test::encode_in(sampled_top_k{.ratio = 0.1f}, little, where), 150, where),
                        test::decode(top_k{.ratio = 0.1f}, test::encode(top_k{.ratio = 0.1f}, little), 150)));
}

TEST_CASE_TEMPLATE("what is not finite is sent first", Codec, packed_top_k, chunked_top_k, sampled_top_k) {
  for (std::size_t const n : {std::size_t{500}, std::size_t{50'000}})
    for (std::size_t const at : {std::size_t{0}, n / 2, n - 1})
      for (float const bad : {test::infinity, -test::infinity, test::not_a_number}) {
        auto x = test::normal(n, 1);
        x[at] = bad;
        auto const y = test::decode_in(Codec{}, test::encode_in(Codec{}, x, {}), n, {});
        REQUIRE_FALSE(std::isfinite(y[at]));
      }
  CHECK(test::encode_in(Codec{}, {}, {}).empty());
  CHECK_NOTHROW(test::decode_in(Codec{}, {}, 0, {}));
}

TEST_CASE_TEMPLATE("damaged payloads change nothing", Codec, packed_top_k, chunked_top_k, sampled_top_k) {
  test::damage(Codec{.ratio = 0.05f}, test::normal(700, 3));
  test::damage(Codec{.ratio = 0.5f}, test::normal(64, 3));
  test::damage(Codec{.ratio = 0.02f}, test::normal(9001, 3), 100);
}

TEST_CASE_TEMPLATE("ranks hold the same sums, and the bytes are those predicted", Codec, packed_top_k, chunked_top_k,
                   sampled_top_k) {
  test::sums_of_ranks(Codec{.ratio = 0.05f});
  test::sums_of_ranks(compress::error_feedback{Codec{.ratio = 0.05f}});
  test::restart(compress::error_feedback{Codec{.ratio = 0.05f}}, 999);
}

}  // namespace compress_sparse_top_k
