// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace core_parameters {

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
  std::array<float, 6> w{}, g{}, w2{}, g2{};
  parameter_list p;
  p.add("w", w, g, {2, 3});
  CHECK_THROWS_AS(p.add("w", w, g), argument_error);
  CHECK_THROWS_AS(p.add("short gradient", w, std::span(g).first(5), {6}), argument_error);
  CHECK_THROWS_AS(p.add("shape", w, g, {7}), argument_error);
  std::array<std::int64_t, 2> const contiguous{3, 1}, transposed{1, 2};
  p.add("strided ok", w2.data(), contiguous, g2.data(), contiguous, {2, 3});
  CHECK_THROWS_WITH_AS(
      p.add("t", w.data(), contiguous, g.data(), transposed, {2, 3}),
      "parameter 't': the gradient of shape {2, 3} has stride 2 in dimension 1 where a contiguous tensor has 1: "
      "make it contiguous before it is registered",
      argument_error);
  CHECK(p.size() == 2);
  std::array<std::int64_t, 2> const of_nothing{1, 1};  // as PyTorch has it for {3, 0}
  p.add("empty", nullptr, of_nothing, nullptr, of_nothing, {3, 0});
  CHECK(p.size() == 3);
}

TEST_CASE("memory that cannot be right is refused, with the tensors that share it, and the list stays as it was") {
  std::vector<float> w(100), g(100), other(100), more(100);
  parameter_list p;
  p.add("embedding", std::span(w).first(50), std::span(g).first(50), {5, 10});
  auto const refused = [&](std::span<float> weight, std::span<float> gradient) {
    try {
      p.add("head", weight, gradient);
    } catch (argument_error const& e) {
      CHECK(p.size() == 1);
      CHECK(!p.contains("head"));
      CHECK(p.flat_size() == 50);
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK(refused(std::span(w).first(50), std::span(other).first(50)) ==
        "parameter 'head': its weight shares memory with the weight of 'embedding': tied weights are one parameter, "
        "registered once, with the sum of their gradients");
  // From before, within, at either end, around.
  for (auto const& [begin, n] : {std::pair{49, 1}, {0, 1}, {10, 5}, {40, 20}, {0, 100}, {49, 51}})
    CHECK(refused(std::span(w).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
                  std::span(other).first(static_cast<std::size_t>(n)))
              .find("tied weights") != std::string::npos);
  CHECK(refused(std::span(other).first(9), std::span(g).subspan(45, 9))
            .find("its gradient shares memory with the gradient of 'embedding'") != std::string::npos);
  CHECK(refused(std::span(other).first(9), std::span(w).first(9))
            .find("its gradient shares memory with the weight of 'embedding'") != std::string::npos);
  CHECK(refused(std::span(g).first(9), std::span(other).first(9))
            .find("its weight shares memory with the gradient of 'embedding'") != std::string::npos);
  CHECK(refused(other, other).find("its gradient is its weight's memory") != std::string::npos);
  CHECK(refused(std::span(other).first(60), std::span(other).last(60)).find("its gradient is its weight's memory") !=
        std::string::npos);
  CHECK(refused({static_cast<float*>(nullptr), 4}, std::span(other).first(4))
            .find("its weight is a null pointer, its size 4") != std::string::npos);
  CHECK(refused(std::span(other).first(4), {static_cast<float*>(nullptr), 4}).find("its gradient is a null pointer") !=
        std::string::npos);
  std::array<std::int64_t, 1> const one{1};
  CHECK_THROWS_AS(p.add("null", nullptr, one, other.data(), one, {4}), argument_error);
  // What was refused left nothing behind: all of this memory is free, and neighbors are no overlap.
  p.add("head", std::span(w).last(50), std::span(g).last(50));
  p.add("rest", other, more);
  p.add("empty", std::span<float>{}, std::span<float>{});
  p.add("empty too", std::span<float>{}, std::span<float>{}, {3, 0});
  CHECK(p.flat_size() == 200);
}

TEST_CASE("shapes that no memory has are refused before anything is multiplied") {
  std::vector<float> w(8), g(8);
  parameter_list p;
  std::int64_t const huge = std::int64_t{1} << 62, most = std::numeric_limits<std::int64_t>::max();
  for (shape const& s : {shape{-1}, shape{-2, -4}, shape{2, -4}, shape{8, 1, -1}, shape{huge, 2}, shape{huge, 4},
                         shape{most, most}, shape{huge, huge, 0}, shape{0, huge, huge}, shape{most}}) {
    CAPTURE(s);
    CHECK_THROWS_AS(p.add("w", w, g, s), argument_error);
    CHECK_THROWS_AS(p.add_opaque("w", s), argument_error);
    CHECK_THROWS_AS(arena({{"w", s}}), argument_error);
    std::array<std::int64_t, 6> const strides{};
    CHECK_THROWS_AS(p.add("w", w.data(), std::span(strides).first(static_cast<std::size_t>(s.rank)), g.data(),
                          std::span(strides).first(static_cast<std::size_t>(s.rank)), s),
                    argument_error);
  }
  CHECK_THROWS_AS(arena({{"a", {huge / 4}}, {"b", {huge / 4}}, {"c", {huge / 4}}}), argument_error);
  CHECK(p.empty());
  shape seven;
  for (int d = 0; d < shape::max_rank; ++d) seven.push_back(2);
  CHECK_THROWS_WITH_AS(seven.push_back(2), "shape {2, 2, 2, 2, 2, 2}: a tensor has at most 6 dimensions",
                       argument_error);
  CHECK(seven.rank == shape::max_rank);
  CHECK_THROWS_AS(buffer<double>(std::size_t{1} << 62), std::bad_alloc);  // whose bytes would be counted as 0
}

TEST_CASE("a list that was moved from is empty, and can be used again") {
  std::vector<float> w(8), g(8);
  parameter_list p;
  p.add("w", w, g);
  parameter_list const q = std::move(p);
  CHECK(q.flat_size() == 8);
  CHECK(p.flat_size() == 0);  // NOLINT(bugprone-use-after-move): that is what is tested
  p.add("v", std::span(w).first(3), std::span(g).first(3));
  CHECK(p.offset(0) == 0);
  CHECK(p.flat_size() == 3);
}

TEST_CASE("memory that moved is told to a list by rebind, alone or several at once, or nothing changes") {
  std::vector<float> a(4, 1), ga(4), b(4, 2), gb(4), c(4, 3), gc(4);
  parameter_list p;
  p.add("a", a, ga);
  p.add("b", b, gb, {2, 2});
  p.rebind("a", c, gc);
  CHECK(p[0].weight.data() == c.data());
  CHECK(p[0].gradient.data() == gc.data());
  CHECK(p[1].shape == shape{2, 2});
  CHECK_THROWS_AS(p.rebind("b", c, gb), argument_error);  // a's
  CHECK_THROWS_AS(p.rebind("b", a, a), argument_error);   // no gradient of its own
  CHECK_THROWS_AS(p.rebind("b", std::span(a).first(3), std::span(ga).first(3)), argument_error);
  CHECK_THROWS_AS(p.rebind("c", a, ga), argument_error);
  CHECK_THROWS_AS(p.rebind("b", {static_cast<float*>(nullptr), 4}, ga), argument_error);
  CHECK(p[1].weight.data() == b.data());
  CHECK(p[1].gradient.data() == gb.data());
  // As an allocator does when all gradients are freed and made again: each takes what another one had.
  std::vector<parameter_memory> const exchanged{{"a", b, gb}, {"b", c, gc}};
  p.rebind(exchanged);
  CHECK(p[0].weight.data() == b.data());
  CHECK(p[1].gradient.data() == gc.data());
  std::vector<parameter_memory> const half_wrong{{"a", c, gc}, {"b", c, gb}}, twice{{"a", a, ga}, {"a", a, ga}};
  CHECK_THROWS_AS(p.rebind(half_wrong), argument_error);
  CHECK_THROWS_AS(p.rebind(twice), argument_error);
  CHECK(p[0].weight.data() == b.data());
  CHECK(p[1].weight.data() == c.data());
  p.add("c", a, ga);     // free, as it was left
  p.rebind("a", b, gb);  // where it is already
}

TEST_CASE("a million tensors are added in a time that grows as their number does, whatever their order") {
  std::size_t const n = 1'000'000;
  std::vector<float> memory(2 * n);
  for (bool const backwards : {false, true}) {
    parameter_list p;
    auto const begin = std::chrono::steady_clock::now();
    for (std::size_t k = 0; k < n; ++k) {
      std::size_t const i = backwards ? n - 1 - k : k;
      p.add(std::to_string(i * 7919 % n), std::span(&memory[i], 1), std::span(&memory[n + i], 1));
    }
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    CHECK(p.find("7919") == (backwards ? n - 2 : 1));
    CHECK_THROWS_AS(p.add("again", std::span(&memory[5], 1), std::span(&memory[n + 5], 1)), argument_error);
    CHECK(seconds < 30);  // about 1; shifting the names of all others for each took minutes
  }
}

TEST_CASE("a column-major tensor is its transpose read by rows, and rules are told its own shape") {
  std::vector<float> w(6), g(6), w2(24), g2(24), v(3), gv(3);
  parameter_list p;
  p.add("m", w, g, {2, 3}, layout::column_major);
  p.add("t", w2, g2, {2, 3, 4}, layout::column_major);
  p.add("v", v, gv, {3}, layout::column_major);
  CHECK(p[0].shape == shape{3, 2});
  CHECK(p[0].logical_shape() == shape{2, 3});
  CHECK(p[1].shape == shape{4, 3, 2});
  CHECK(p[1].logical_whole() == shape{2, 3, 4});
  CHECK(p[2].shape == shape{3});
  CHECK(!p[2].transposed);
  parameter_list parts;
  parts.add_part(p[0], {0, 6});
  CHECK(parts[0].logical_shape() == shape{2, 3});
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

}  // namespace core_parameters
