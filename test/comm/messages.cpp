// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/concepts.hpp>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "messages.hpp"

namespace comm_messages {

using namespace dovetail;
using namespace std::chrono_literals;
using communicator_type = comm::threads::communicator;
static_assert(elastic_communicator<communicator_type> && elastic_communicator<comm::self>);

TEST_CASE("messages from any rank, of any length, with any tag: on one rank and on 1 to 6 threads") {
  comm::self{}.run([](auto& c) { messages::all(c); });
  for (int ranks = 1; ranks <= 6; ++ranks) comm::threads{ranks}.run([](auto& c) { messages::all(c); });
}

TEST_CASE("a rank is lost: messages of the others go on, and those who are left make a communicator of their own") {
  for (int const ranks : {3, 4, 6})
    for (int victim = 1; victim < ranks; victim += 2)
      CHECK_THROWS_WITH_AS(comm::threads(ranks, {.deadline = 200ms}).run([&](auto& c) {
        messages::survive(c, victim, [] { throw std::runtime_error("killed"); });
      }),
                           "killed", std::runtime_error);
}

TEST_CASE("two are lost one after the other, in the communicator of those who were left, too") {
  std::atomic<int> done{0};
  CHECK_THROWS_AS(comm::threads(5, {.deadline = 10s}).run([&](auto& c) {
    std::vector<float> v(3000, 1.0f);
    if (c.rank() == 3) throw std::runtime_error("first");
    CHECK_THROWS_AS(c.all_reduce(std::span(v)), rank_lost);
    auto four = c.shrink();
    REQUIRE(four.size() == 4);
    if (c.rank() == 0) throw std::runtime_error("second");
    CHECK_THROWS_AS(four.barrier(), rank_lost);
    auto three = four.shrink();
    REQUIRE(three.size() == 3);
    CHECK(three.rank() == (c.rank() == 4 ? 2 : c.rank() - 1));
    std::fill(v.begin(), v.end(), 1.0f);
    three.all_reduce(std::span(v));
    CHECK(v[7] == 3);
    ++done;
  }),
                  std::runtime_error);
  CHECK(done == 3);
}

TEST_CASE("who does not come to shrink within the deadline is left behind, and told so") {
  std::atomic<int> went_on{0}, told{0};
  comm::threads(4, {.deadline = 150ms}).run([&](auto& c) {
    if (c.rank() == 1) {
      std::this_thread::sleep_for(800ms);
      try {
        auto const rest = c.shrink();
      } catch (rank_lost const& e) {
        told += e.rank == 1 && std::string(e.what()).find("the others go on without this rank") != std::string::npos;
      }
      CHECK_THROWS_AS(c.send({}, 0), rank_lost);
      return;
    }
    CHECK_THROWS_AS(c.barrier(), rank_lost);
    auto rest = c.shrink();
    went_on += rest.size() == 3;
    rest.barrier();
  });
  CHECK(went_on == 3);
  CHECK(told == 1);
  // Nobody was lost before: rank 2 alone does not come.
  went_on = 0;
  comm::threads(3, {.deadline = 150ms}).run([&](auto& c) {
    if (c.rank() == 2) return std::this_thread::sleep_for(700ms);
    auto rest = c.shrink();
    rest.barrier();
    went_on += rest.size() == 2;
  });
  CHECK(went_on == 2);
}

TEST_CASE(
    "a rank that leaves by itself is news to who waits for any, behind its messages; when all have, that is said") {
  comm::threads(3, {.deadline = 10s}).run([&](auto& c) {
    if (c.rank() > 0) return c.send(messages::made(c.rank(), 1, 10), 0);
    std::vector<std::byte> data;
    int heard = 0, left = 0;
    for (;;) try {
        auto const e = c.wait_message();
        c.recv(data, e.from);
        ++heard;
      } catch (rank_lost const& e) {
        if (e.rank < 0) break;
        ++left;
        CHECK(std::string(e.what()) == message("wait_message from any rank: rank ", e.rank, " has left"));
      }
    CHECK(heard == 2);
    CHECK(left == 2);
    CHECK(c.lost_ranks() == std::vector<int>{1, 2});
    CHECK_THROWS_WITH_AS(static_cast<void>(c.wait_message()), "wait_message from any rank: all other ranks are gone",
                         rank_lost);
  });
}

TEST_CASE("receiving from any has a deadline, waiting for a message has none") {
  comm::threads(2, {.deadline = 100ms}).run([&](auto& c) {
    std::vector<std::byte> data;
    if (c.rank() == 1) {
      std::this_thread::sleep_for(600ms);
      return c.send(messages::made(1, 1, 33), 0, 4);
    }
    CHECK_THROWS_WITH_AS(c.recv(data), doctest::Contains("wait_message from any rank: nobody sent anything for 100 ms"),
                         rank_lost);
    CHECK(c.wait_message() == comm::envelope{1, 4, 33});
    CHECK(c.recv(data).bytes == 33);
  });
}

TEST_CASE("abort ends a communicator for all, whatever they wait in, and says who and why") {
  std::atomic<int> named{0};
  comm::threads(4, {.deadline = 30s}).run([&](auto& c) {
    auto const named_by = [&](auto const& f) {
      try {
        f();
      } catch (rank_lost const& e) {
        named += e.rank == 2 && std::string(e.what()).find("rank 2 has ended it: no licence") != std::string::npos;
      }
    };
    std::vector<std::byte> data;
    if (c.rank() == 0) named_by([&] { c.barrier(); });
    if (c.rank() == 1) named_by([&] { c.wait_message(); });
    if (c.rank() == 3) named_by([&] { c.recv(data, 1); });
    if (c.rank() == 2) {
      std::this_thread::sleep_for(50ms);
      c.abort("no licence");
    }
    named_by([&] { c.send(data, 0); });
    named_by([&] { c.shrink(); });
    named_by([&] { c.probe(); });
    named_by([&] { c.barrier(); });
  });
  CHECK(named == 3 + 16);
}

TEST_CASE("ranks and tags that cannot be are refused") {
  comm::threads(2).run([&](auto& c) {
    std::vector<std::byte> data;
    CHECK_THROWS_WITH_AS(static_cast<void>(c.wait_message(2)), "a message from rank 2: there are ranks 0 to 1",
                         argument_error);
    CHECK_THROWS_AS(static_cast<void>(c.wait_message(-2)), argument_error);
    CHECK_THROWS_AS(static_cast<void>(c.probe(0, 40000)), argument_error);
    CHECK_THROWS_AS(c.recv(data, 0, -2), argument_error);
    c.barrier();
  });
  comm::self alone;
  std::vector<std::byte> data;
  CHECK_THROWS_AS(static_cast<void>(alone.wait_message()), rank_lost);
  CHECK_THROWS_AS(alone.recv(data), rank_lost);
  CHECK_FALSE(alone.probe());
  comm::threads(1).run([](auto& c) { CHECK_THROWS_AS(static_cast<void>(c.wait_message()), rank_lost); });
}

TEST_CASE("shrink may be asked for twice at once, ends with abort, and a second loss is named") {
  comm::threads(4, {.deadline = 30s}).run([](auto& c) {
    for (int i = 0; i < 20; ++i) {
      auto const a = c.shrink();
      auto const b = c.shrink();
      CHECK(a.size() + b.size() == 8);
    }
  });
  auto const start = std::chrono::steady_clock::now();
  std::atomic<int> ended{0};
  comm::threads(3, {.deadline = 30s}).run([&](auto& c) {
    if (c.rank() == 0) {
      std::this_thread::sleep_for(50ms);
      c.abort("no licence");
    } else {
      try {
        c.shrink();
      } catch (rank_lost const& e) {
        ended += e.rank == 0;
      }
    }
  });
  CHECK(ended == 2);
  CHECK(std::chrono::steady_clock::now() - start < 10s);
  std::atomic<int> named{0};
  CHECK_THROWS_AS(comm::threads(3, {.deadline = 200ms}).run([&](auto& c) {
    if (c.rank() == 2) throw std::runtime_error("killed");
    std::vector<float> v(10);
    CHECK_THROWS_AS(c.all_reduce(std::span(v)), rank_lost);
    if (c.rank() == 1) return std::this_thread::sleep_for(700ms);
    std::byte b{};
    try {
      c.recv(std::span(&b, 1), 1);
    } catch (rank_lost const& e) {
      named += e.rank == 1;
    }
  }),
                  std::runtime_error);
  CHECK(named == 1);
}

}  // namespace comm_messages
