// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>

#include <array>
#include <cstdint>

#include <doctest/doctest.h>

using namespace dovetail;

TEST_CASE("an arena is one aligned block in forward order, and its copies own their own memory") {
  arena a({{"0.weight", {3, 5}}, {"0.bias", {5}}, {"1.weight", {}}});
  auto& p = a.parameters();
  REQUIRE(p.size() == 3);
  CHECK(p.flat_size() == 21);
  CHECK(p.offset(1) == 15);
  CHECK(p.offset(3) == 21);
  CHECK(p[0].weight.data() == a.weights().data());
  CHECK(reinterpret_cast<std::uintptr_t>(a.weights().data()) % 64 == 0);
  CHECK(p.flat_gradients().data() == a.gradients().data());
  CHECK(p.flat_gradients().size() == 21);
  p[1].weight[0] = 7;
  arena b = a;
  CHECK(b.parameters()[1].weight[0] == 7);
  b.parameters()[1].weight[0] = 8;
  CHECK(p[1].weight[0] == 7);
  arena moved = std::move(b);
  CHECK(moved.parameters()[1].weight[0] == 8);
  moved = moved;  // NOLINT: self-assignment is the point
  CHECK(moved.parameters()[1].weight[0] == 8);
  CHECK(p.find("1.weight") == 2);
  CHECK_THROWS_WITH_AS(p.find("2.weight"), "no parameter is called '2.weight'", argument_error);
}

TEST_CASE("a caller's scattered tensors have a flat index space but no flat span") {
  std::array<float, 4> w0{}, g0{}, w1{}, g1{};
  parameter_list p;
  p.add("a", w0, g0);
  p.add("b", w1, g1, {2, 2});
  CHECK(p.flat_size() == 8);
  CHECK(p.flat_weights().empty());
}

TEST_CASE("registration refuses what a step would silently get wrong") {
  std::array<float, 6> w{}, g{};
  parameter_list p;
  p.add("w", w, g, {2, 3});
  CHECK_THROWS_AS(p.add("w", w, g), argument_error);
  CHECK_THROWS_AS(p.add("short gradient", w, std::span(g).first(5), {6}), argument_error);
  CHECK_THROWS_AS(p.add("shape", w, g, {7}), argument_error);
  std::array<std::int64_t, 2> const contiguous{3, 1}, transposed{1, 2};
  p.add("strided ok", w.data(), contiguous, g.data(), contiguous, {2, 3});
  CHECK_THROWS_WITH_AS(
      p.add("t", w.data(), contiguous, g.data(), transposed, {2, 3}),
      "parameter 't': the gradient of shape {2, 3} has stride 2 in dimension 1 where a contiguous tensor has 1: "
      "make it contiguous before it is registered",
      argument_error);
  CHECK(p.size() == 2);
}

TEST_CASE("shards are contiguous, in rank order, cover everything and differ by at most one") {
  for (std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{1000003}})
    for (int ranks = 1; ranks <= 8; ++ranks) {
      std::size_t at = 0;
      for (int r = 0; r < ranks; ++r) {
        auto const s = shard(n, ranks, r);
        CHECK(s.begin == at);
        CHECK(s.size() >= n / static_cast<std::size_t>(ranks));
        CHECK(s.size() <= n / static_cast<std::size_t>(ranks) + 1);
        at = s.end;
      }
      CHECK(at == n);
    }
}
