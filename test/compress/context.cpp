// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What codecs are told of where they are, and the numbers of any width that they write.
#include "tools.hpp"

#include <set>
#include <tuple>

#include <doctest/doctest.h>

namespace compress_context {

using namespace dovetail;
using compress::context;

TEST_CASE(
    "random numbers of an element are its own: not another rank's, step's, round's, input's, use's or element's") {
  std::set<std::tuple<std::uint32_t, std::uint32_t>> seen;  // two words: 64 bits do not meet by chance
  std::size_t drawn = 0;
  for (std::int64_t const step : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 40})
    for (int rank = 0; rank < 8; ++rank)
      for (int round = 0; round < 2; ++round)
        for (auto const input : {context::inputs::gradient, context::inputs::sum})
          for (std::uint32_t use = 0; use < 3; ++use) {
            context const where{.step = step, .seed = 3, .rank = rank, .ranks = 8, .round = round, .input = input};
            for (std::size_t i = 0; i < 8; i += 2, ++drawn)
              seen.insert({where.own_random(use).word(i), where.own_random(use).word(i + 1)});
          }
  CHECK(seen.size() == drawn);
}

TEST_CASE("numbers do not depend on how gradients are cut, and common ones not on the rank") {
  context const whole{.step = 5, .seed = 1, .rank = 2, .ranks = 4, .bucket = 0, .offset = 100};
  context const part{.step = 5, .seed = 1, .rank = 2, .ranks = 4, .bucket = 7, .shard = 3, .offset = 164};
  for (std::size_t i = 0; i < 50; ++i) CHECK(whole.own_random().word(64 + i) == part.own_random().word(i));
  context other = whole;
  other.rank = 3;
  CHECK(whole.common_random().word(9) == other.common_random().word(9));
  CHECK(whole.own_random().word(9) != other.own_random().word(9));
  other.rank = 2, other.seed = 2;
  CHECK(whole.common_random().word(9) != other.common_random().word(9));
}

TEST_CASE("numbers of any width come back as they were written, without a gap between them") {
  for (int width = 1; width <= 64; ++width) {
    CAPTURE(width);
    std::vector<std::byte> memory(compress::bytes_of_bits(203, width),
                                  std::byte{0xff});  // what was there is overwritten
    random_stream const random{static_cast<std::uint64_t>(width)};
    auto const value = [&](std::size_t i) {
      std::uint64_t const bits = std::uint64_t{random.word(2 * i)} << 32 | random.word(2 * i + 1);
      return i % 7 == 0 ? compress::detail::lowest_bits(width) : bits & compress::detail::lowest_bits(width);
    };
    compress::bit_writer out(memory);
    for (std::size_t i = 0; i < 203; ++i) out.put(value(i), width);
    CHECK(out.bytes() == memory.size());
    compress::bit_reader in(memory);
    for (std::size_t i = 0; i < 203; ++i) REQUIRE(in.get(width) == value(i));
    CHECK_NOTHROW(in.require_end());
    CHECK_THROWS_AS(static_cast<void>(in.get(8)), input_error);
  }
  // Widths may change from number to number.
  std::vector<std::byte> memory(8);
  compress::bit_writer out(memory);
  out.put(5, 3);
  out.put(1, 1);
  out.put(0x1234567, 29);
  CHECK(out.bytes() == 5);
  CHECK(memory[0] == std::byte{0x7d});
  compress::bit_reader in(std::span<std::byte const>(memory).first(out.bytes()));
  CHECK(in.get(3) == 5);
  CHECK(in.get(1) == 1);
  CHECK(in.get(29) == 0x1234567);
  CHECK_NOTHROW(in.require_end());
}

TEST_CASE("numbers that do not fit, full buffers, truncated, too long and damaged payloads are refused") {
  std::vector<std::byte> memory(2);
  compress::bit_writer out(memory);
  CHECK_THROWS_WITH_AS(out.put(8, 3), "bit_writer: 8 does not fit in 3 bits", argument_error);
  CHECK_THROWS_AS(out.put(0, 0), argument_error);
  CHECK_THROWS_AS(out.put(0, 65), argument_error);
  out.put(7, 3);
  out.put(0x1ff, 9);
  CHECK_THROWS_WITH_AS(out.put(1, 5), doctest::Contains("5 bits behind 12 in a buffer of 2 bytes"), argument_error);
  compress::bit_reader in(memory);
  static_cast<void>(in.get(3));
  CHECK_THROWS_WITH_AS(in.require_end(), doctest::Contains("too long"), input_error);
  static_cast<void>(in.get(9));
  CHECK_THROWS_WITH_AS(static_cast<void>(in.get(5)), doctest::Contains("it is truncated"), input_error);
  CHECK_NOTHROW(in.require_end());
  memory[1] |= std::byte{0x80};
  compress::bit_reader again(memory);
  static_cast<void>(again.get(12));
  CHECK_THROWS_WITH_AS(again.require_end(), doctest::Contains("damaged"), input_error);
}

}  // namespace compress_context
