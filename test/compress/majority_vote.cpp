// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <cmath>
#include <string>

#include <doctest/doctest.h>
#include <dovetail/comm.hpp>
#include <dovetail/sync.hpp>

namespace compress_majority_vote {

using namespace dovetail;
using compress::majority_vote;

// What all ranks' payloads decide, as an exchange decodes them.
std::vector<float> decide(majority_vote const& codec, std::vector<std::vector<float>> const& ranks, std::int64_t step) {
  std::size_t const n = ranks[0].size();
  std::vector<float> out(n);
  auto receiver = codec.init({ranks[0], {}});
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    auto sender = codec.init({ranks[r], {}});
    std::vector<std::byte> payload(codec.wire_size(n));
    compress::context where{.step = step, .rank = static_cast<int>(r), .ranks = static_cast<int>(ranks.size())};
    codec.encode({ranks[r], {}}, sender, payload, where);
    where.first = r == 0;
    where.last = r + 1 == ranks.size();
    codec.decode_add(payload, out, 1, receiver, where);
  }
  return out;
}

TEST_CASE("most of the signs decide, and the size of what is behind them does not count") {
  CHECK(decide({}, {{1, -1, 5, -1}, {2, -100, -1, 1}, {-50, 0.5f, 1, -1}}, 0) == std::vector<float>{1, -1, 1, -1});
  CHECK(majority_vote{}.wire_size(0) == 0);
  CHECK(majority_vote{}.wire_size(1) == 5);
  CHECK(majority_vote{}.wire_size(8000) == 1004);
}

TEST_CASE("ties and zeros prefer no sign, in no place and no step") {
  std::vector<float> const up(6, 1.0f), down(6, -1.0f), none(6);
  std::vector<float> const one{0, 0, 0, 0, 0, 1}, other{0, 0, 0, 0, 0, -1};
  CHECK(decide({}, {none, none}, 0) == none);
  CHECK(decide({}, {none, up}, 0) == up);
  for (auto const& ranks : std::vector<std::vector<std::vector<float>>>{{up, down}, {one, other}}) {
    std::vector<float> sum(6);
    for (int step = 0; step < 10; ++step) {
      auto const vote = decide({}, ranks, step);
      float all = 0;
      for (std::size_t i = 0; i < 6; ++i) {
        CHECK(std::fabs(vote[i]) == 1);
        all += vote[i];
        sum[i] += vote[i];
      }
      CHECK(all == 0);
    }
    CHECK(sum == std::vector<float>(6));
  }
}

TEST_CASE("one rank's gradient that is not finite is seen by all, in all elements") {
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number})
    for (float const v : decide({}, {{1, 1, 1}, {1, bad, 1}, {1, 1, 1}}, 0)) CHECK(std::isnan(v));
}

TEST_CASE("momentum: ranks vote with what they remember, a skipped step is forgotten, and it is saved") {
  majority_vote const codec{.momentum = 0.9f};
  std::vector<float> const first{10, -10}, second{-1, 1}, bad{test::infinity, 0};
  auto s = codec.init({first, {}});
  std::vector<std::byte> payload(codec.wire_size(2));
  codec.encode({first, {}}, s, payload, {});
  codec.commit(s);
  CHECK(s.momentum[0] == doctest::Approx(1));
  auto const before = s;
  codec.encode({second, {}}, s, payload, {.step = 1});
  CHECK(std::to_integer<int>(payload[4]) == 2);  // 0.9 · 1 − 0.1 > 0, whatever the gradient says
  CHECK_FALSE(s == before);
  codec.rollback(s);
  CHECK(s == before);
  codec.encode({bad, {}}, s, payload, {.step = 1});
  CHECK(s == before);
  REQUIRE(s.tensors("x.").size() == 1);
  CHECK(s.tensors("x.")[0].name == "x.momentum");
  CHECK(codec.init({first, {}}).tensors("").size() == 1);
  CHECK(majority_vote{}.init({first, {}}).tensors("").empty());
  CHECK_THROWS_AS((majority_vote{.momentum = 1}.init({first, {}})), argument_error);
}

TEST_CASE("a damaged payload is refused before anything is added") {
  majority_vote const codec;
  std::vector<float> const x{1, -1, 1};
  auto s = codec.init({x, {}});
  std::vector<std::byte> payload(codec.wire_size(3));
  codec.encode({x, {}}, s, payload, {});
  std::vector<float> out(3, 7.0f);
  auto const refused = [&](auto&& change) {
    auto other = payload;
    change(other);
    CHECK_THROWS_AS(codec.decode_add(other, out, 1, s, {}), input_error);
    CHECK(out == std::vector<float>(3, 7.0f));
  };
  refused([](auto& p) { p.pop_back(); });
  refused([](auto& p) { p.push_back(std::byte{0}); });
  refused([](auto& p) { p[4] = std::byte{8}; });
  refused([](auto& p) { p[3] = std::byte{0}; });
}

// The same vote in two phases and gathered, on any number of ranks.
TEST_CASE("all ranks get the vote, by both exchanges") {
  for (int const ranks : {1, 2, 3, 4, 5})
    for (auto const plan : {sync::exchange::plan::all_gather, sync::exchange::plan::reduce_scatter_all_gather}) {
      std::size_t const n = 1003;
      std::vector<std::vector<float>> gradients, results(static_cast<std::size_t>(ranks));
      for (int r = 0; r < ranks; ++r) gradients.push_back(test::normal(n, static_cast<std::uint64_t>(r)));
      auto const expected = decide({}, gradients, 4);
      comm::threads{ranks}.run([&](auto& c) {
        auto values = gradients[static_cast<std::size_t>(c.rank())];
        std::vector<float> weights(n);
        auto list = parameter_list{};
        list.add("w", std::span<float>(weights), std::span<float>(values));
        sync::bucket_exchange exchange(majority_vote{}, plan, list, {0, n}, std::span<float const>(values), ranks,
                                       c.rank());
        exchange.run(c, std::span<float>(values), {.step = 4});
        results[static_cast<std::size_t>(c.rank())] = values;
      });
      for (auto const& r : results) CHECK(r == expected);
    }
}

}  // namespace compress_majority_vote
