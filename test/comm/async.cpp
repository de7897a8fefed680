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

using namespace dovetail;
using namespace std::chrono_literals;
using conformance::expect;
using communicator_type = comm::threads::communicator;

TEST_CASE("submitted operations run in order, behind the submitter's back, and are counted") {
  comm::threads{3}.run([](communicator_type& c) {
    comm::async a(c);
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
  w.run([](communicator_type& c) {
    comm::async a(c);
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
  int done = 0;
  {
    comm::async a(c);
    a.submit([&](comm::self&) {
      std::this_thread::sleep_for(20ms);
      ++done;
    });
    a.submit([&](comm::self&) { ++done; });
  }
  CHECK(done == 2);
  comm::ticket dropped;
  try {
    comm::async a(c);
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
  comm::async owning{comm::self{}};
  owning.barrier().wait();
  CHECK(owning.traffic().operations == 1);
}

TEST_CASE("an owner that waits for work or for a late rank does not burn its core") {
  timespec before{}, after{};
  comm::threads{2}.run([&](communicator_type& c) {
    comm::async a(c);
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
