// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm/async.hpp>
#include <dovetail/comm/self.hpp>
#include <dovetail/comm/threads.hpp>

#include <chrono>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "conformance.hpp"

namespace comm_async {

using namespace dovetail;
using namespace std::chrono_literals;
using conformance::expect;
using communicator_type = comm::threads::communicator;
using comm::progress;

namespace {
constexpr progress both[] = {progress::thread, progress::caller};
}

TEST_CASE("submitted operations run in order, behind the submitter's back, and are counted") {
  for (auto const by : both)
    comm::threads{3}.run([by](communicator_type& c) {
      comm::async a(c, by);
      expect(a.has_thread() == (by == progress::thread), "who executes");
      std::vector<std::vector<float>> v(20, std::vector<float>(5000, 1.0f));
      std::vector<comm::ticket> tickets;
      for (auto& x : v) tickets.push_back(a.all_reduce(std::span(x)));
      for (std::size_t i = v.size(); i-- > 0;) {
        tickets[i].wait();
        tickets[i].wait();
        expect(tickets[i].ready() && v[i][4999] == 3, "sum ", i);
      }
      std::vector<float> x(9), all(27);
      std::vector<std::byte> bytes;
      std::vector<std::size_t> offsets;
      a.broadcast(std::span(x), 1);
      a.all_gather(std::span<float const>(x), std::span(all));
      a.all_gather(std::span(all));
      a.reduce_scatter(std::span(all));
      std::vector<float> out(27);
      a.all_to_all(std::span<float const>(all), std::span(out));
      a.all_gather_v(std::as_bytes(std::span(x)), bytes, offsets);
      a.send(std::as_bytes(std::span(x)), (c.rank() + 1) % 3);
      a.recv(std::as_writable_bytes(std::span(x)), (c.rank() + 2) % 3);
      auto owner = std::make_unique<int>(3);  // what is submitted need not be copyable
      a.submit([owner = std::move(owner)](communicator_type& k) { expect(*owner == k.size(), "owner"); });
      a.barrier().wait();
      expect(bytes.size() == 108 && offsets.size() == 4, "all_gather_v");
      expect(a.traffic().operations == 29 && a.traffic() == c.traffic(), "operations ", a.traffic().operations);
      expect(comm::ticket{}.ready(), "a ticket of nothing");
      comm::ticket{}.wait();
    });
}

TEST_CASE("after a failure all later tickets fail with the same error at once, and nothing hangs") {
  comm::threads const w{2, {.deadline = 60s}};
  auto const start = std::chrono::steady_clock::now();
  for (auto const by : both)
    w.run([by](communicator_type& c) {
      comm::async a(c, by);
      if (c.rank() == 1) {
        a.barrier().wait();
        return;
      }
      std::vector<float> v(100);
      a.barrier();
      auto const first = a.all_reduce(std::span(v));
      auto const queued = a.barrier();
      for (auto const& t : {first, queued, a.barrier()}) {
        bool lost = false;
        try {
          t.wait();
        } catch (rank_lost const& e) {
          lost = e.rank == 1;
          expect(std::string(e.what()).starts_with("all_reduce"), "the same error");
        }
        expect(lost, "rank 1 is lost");
      }
    });
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}

TEST_CASE("the destructor waits for what was submitted, or drops it when it runs because of an exception") {
  comm::self c;
  for (auto const by : both) {
    int done = 0;
    {
      comm::async a(c, by);
      a.submit([&](comm::self&) {
        std::this_thread::sleep_for(20ms);
        ++done;
      });
      a.submit([&](comm::self&) { ++done; });
    }
    CHECK(done == 2);
    comm::ticket dropped;
    try {
      comm::async a(c, by);
      a.submit([&](comm::self&) {
        std::this_thread::sleep_for(50ms);
        ++done;
      });
      dropped = a.submit([&](comm::self&) { ++done; });
      std::this_thread::sleep_for(5ms);
      throw std::runtime_error("elsewhere");
    } catch (std::runtime_error const&) {
    }
    CHECK(done <= 3);
    CHECK_THROWS_AS(dropped.wait(), comm_error);
    CHECK(dropped.ready());
    comm::async owning{comm::self{}, by};
    owning.barrier().wait();
    CHECK(owning.traffic().operations == 1);
  }
}

TEST_CASE("without a thread the caller executes what it submitted, when it asks for it and in its order") {
  comm::self c;
  comm::async a(c, progress::caller);
  std::vector<int> order;
  auto const submit = [&](int i) { return a.submit([&order, i](comm::self&) { order.push_back(i); }); };
  auto const first = submit(1), second = submit(2);
  auto const third = submit(3);
  CHECK(order.empty());
  CHECK(second.ready());
  CHECK(order == std::vector{1, 2});
  first.wait();
  CHECK(order.size() == 2);
  third.wait();
  CHECK(order == std::vector{1, 2, 3});
  auto const by_itself = std::this_thread::get_id();
  std::thread::id ran;
  a.submit([&ran](comm::self&) { ran = std::this_thread::get_id(); }).wait();
  CHECK(ran == by_itself);
}

namespace {
/// Says how many cores there are.
struct crowded : comm::self {
  bool spare = false;
  bool has_spare_core() const { return spare; }
};
}  // namespace

TEST_CASE("a thread of its own is started where the communicator finds a core for it, or does not say") {
  for (bool const spare : {false, true}) {
    crowded c;
    c.spare = spare;
    comm::async const a(c);
    CHECK(a.has_thread() == spare);
    comm::async const forced(c, progress::thread);
    CHECK(forced.has_thread());
  }
}

TEST_CASE("an owner that waits for work or for a late rank does not burn its core") {
  timespec before{}, after{};
  comm::threads{2}.run([&](communicator_type& c) {
    comm::async a(c, progress::thread);
    c.rank() == 0 ? void(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before)) : void();
    if (c.rank() == 1) std::this_thread::sleep_for(300ms);
    a.barrier().wait();
    std::this_thread::sleep_for(100ms);
    a.barrier().wait();
    c.rank() == 0 ? void(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after)) : void();
  });
  auto const used =
      static_cast<double>(after.tv_sec - before.tv_sec) + 1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
  CHECK(used < 0.1);  // of 0.4 s on the clock, twice that if the owners spun
}

}  // namespace comm_async
