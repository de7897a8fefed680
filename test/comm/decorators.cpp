// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/comm/algorithms.hpp>
#include <dovetail/comm/decorators.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "algorithms.hpp"
#include "conformance.hpp"
#include "messages.hpp"

namespace comm_decorators {

using namespace dovetail;
using namespace std::chrono_literals;
using comm::operation;

using slow_threads = comm::decorated<comm::threads::communicator, comm::throttled>;
static_assert(communicator<slow_threads> && elastic_communicator<slow_threads>);
static_assert(elastic_communicator<comm::decorated<slow_threads, comm::recording>>);
static_assert(elastic_communicator<comm::topology_communicator<comm::self>>);
static_assert(slow_threads::sums == comm::sum_order::rank_order);

namespace {

auto const counting = [](std::atomic<int>& n) {
  return [&n](auto&, comm::call const&, auto const& operation) {
    ++n;
    operation();
  };
};

struct least_line {  // w = 3 x - 0.5 is to be found
  std::vector<float> w = std::vector<float>(2), g = std::vector<float>(2);
  parameter_list list;
  least_line() { list.add("line", w, g); }
  least_line(least_line const& o) : w(o.w), g(o.g) { list.add("line", w, g); }
  least_line& operator=(least_line const& o) {
    w = o.w;
    return *this;
  }
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    loss_sums sums;
    if (!pass.accumulate) g.assign(2, 0.f);
    for (std::size_t i = 0; i < static_cast<std::size_t>(b.size); ++i) {
      float const x = b.values[2 * i], y = b.values[2 * i + 1], error = w[0] * x + w[1] - y;
      g[0] += pass.scale * 2 * error * x;
      g[1] += pass.scale * 2 * error;
      sums.loss += static_cast<double>(error) * static_cast<double>(error);
      ++sums.count;
    }
    return sums;
  }
};
data::in_memory line() {
  std::vector<float> values;
  std::vector<std::int32_t> none(64);
  for (int i = 0; i < 64; ++i) {
    float const x = static_cast<float>(i % 16) / 8 - 1;
    values.push_back(x);
    values.push_back(3 * x - 0.5f);
  }
  return {std::move(values), std::move(none), 2};
}
template <class World>
std::vector<float> trained(World world) {
  auto const data = line();
  train::trainer t{least_line{}, optim::adamw{.lr = 0.05f}, sync::all_reduce{.bucket_bytes = 4}, std::move(world)};
  t.fit(data, {.batch = 8, .epochs = 4});
  return t.model().w;
}

}  // namespace

TEST_CASE("a decorated communicator does what every communicator must do") {
  std::uint64_t own = 0, around = 0;
  std::atomic<int> calls = 0;
  comm::call_log log;
  comm::timing_table times;
  comm::threads{3}.run([&](auto& c) {
    auto const d = conformance::all(c);
    if (c.rank() == 0) own = d;
  });
  comm::threads{3}.run([&](auto& c) {
    auto a = comm::decorate(c, counting(calls));
    auto b = comm::decorate(a, comm::recording{.to = &log});
    auto every = comm::decorate(b, comm::timing{&times});
    auto const d = conformance::all(every);
    if (c.rank() == 0) around = d;
  });
  CHECK(own == around);
  CHECK(calls > 1000);
  // The first function is also around what is done with parts of parts.
  CHECK(static_cast<std::size_t>(calls) == log.calls().size());
  CHECK(times.of(operation::send).calls > 9000);
}

TEST_CASE("messages and survivors, through decorators and an algorithm") {
  comm::threads{3}.run([](auto& c) {
    auto slow = comm::decorate(c, comm::throttled{});
    auto ring = comm::with_algorithm(slow, comm::algorithm::ring{});
    messages::all(ring);
  });
  CHECK_THROWS_WITH_AS(comm::threads(4, {.deadline = 1s}).run([](auto& c) {
    auto ring = comm::with_algorithm(c, comm::algorithm::ring{});
    auto slow = comm::decorate(ring, comm::throttled{});
    messages::survive(slow, 2, [] { throw std::runtime_error("killed"); });
  }),
                       "killed", std::runtime_error);
}

TEST_CASE("throttled: latency, bandwidth and jitter that repeats") {
  auto const took = [](comm::throttled const& t) {
    std::vector<double> seconds(2);
    comm::threads{2}.run([&](auto& c) {
      auto slow = comm::decorate(c, t);
      std::vector<float> v(25000);
      auto const begin = std::chrono::steady_clock::now();
      for (int i = 0; i < 3; ++i) slow.all_reduce(std::span(v));
      seconds[static_cast<std::size_t>(c.rank())] =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
    return seconds[0];
  };
  CHECK(took({.latency = 10ms}) >= 0.03);
  CHECK(took({.bytes_per_second = 1e7}) >= 0.03);  // 100 KB in each
  CHECK(took({.latency = 5ms, .jitter = 4}) >= 0.015);
}

TEST_CASE("faulty: dies, stalls and diverges") {
  auto const run = [](comm::faulty const& f, auto deadline) {
    comm::decorate(comm::threads(3, {.deadline = deadline}), f).run([](auto& c) {
      std::vector<float> v(100, 1.f);
      for (int i = 0; i < 5; ++i) c.all_reduce(std::span(v));
    });
  };
  CHECK_THROWS_AS(run({.rank = 1, .at_operation = 3}, 20s), comm::died);
  CHECK_THROWS_AS(run({.rank = 1, .at_operation = 3, .what = comm::fault::diverges}, 20s), rank_diverged);
  try {
    run({.rank = 1, .at_operation = 3, .what = comm::fault::stalls, .stall = 600ms}, 150ms);
    CHECK(false);
  } catch (rank_lost const& e) {
    CHECK(e.rank == 1);
  }
  run({.rank = 1, .at_operation = 5}, 20s);  // there is no such operation
}

TEST_CASE("recording and timing say what was called") {
  comm::call_log log;
  comm::timing_table times;
  trace events;
  comm::threads{2}.run([&](auto& c) {
    auto r = comm::decorate(c, comm::recording{&log, &events});
    auto both = comm::decorate(r, comm::timing{&times});
    std::vector<float> v(10);
    both.about({7, 2});
    both.all_reduce(std::span(v));
    both.about({});
    auto part = both.split(0, c.rank());
    part.barrier();
    CHECK_THROWS_AS(both.broadcast(std::span(v), 5), argument_error);
  });
  auto const calls = log.calls();
  REQUIRE(calls.size() == 8);
  CHECK(log.text(1).find("rank 1: all_reduce(sum) of 10 f32 (step 7, bucket 2): 40 bytes sent, 40 received") == 0);
  CHECK(log.text().find("barrier") != std::string::npos);
  CHECK(log.text().find("broadcast of 10 f32 from rank 5: 0 bytes sent, 0 received") != std::string::npos);
  CHECK(calls.back().failed);
  CHECK(times.of(operation::all_reduce).calls == 2);
  CHECK(times.of(operation::all_reduce).bytes_sent == 80);
  CHECK(times.of(operation::broadcast).calls == 0);
  CHECK(times.text().find("all_reduce: 2 calls, 80 bytes sent") == 0);
  CHECK(events.events().size() == 8);
}

TEST_CASE("hosts that are not there: traffic by kind of link") {
  comm::topology const hosts{{0, 0, 1, 1}};
  comm::threads{4}.run([&](auto& own) {
    CHECK(own.topology() == comm::topology::one_host(4));
    auto c = comm::with_topology(own, hosts);
    std::vector<float> v(400, 1.f);
    c.all_reduce(std::span(v));
    CHECK(c.traffic().bytes_sent == 2400);
    CHECK(c.traffic().sent_off_host == 1600);  // to two of three ranks
    auto const sent_to_each = [&](auto f) {
      auto const before = c.traffic();
      f();
      return (c.traffic() - before).sent_off_host;
    };
    std::vector<float> w(400);
    CHECK(sent_to_each([&] { c.reduce_scatter(std::span(v)); }) == 800);
    CHECK(sent_to_each([&] { c.all_gather(std::span(v)); }) == 800);
    CHECK(sent_to_each([&] { c.all_to_all(std::span<float const>(v), std::span(w)); }) == 800);
    CHECK(sent_to_each([&] { c.broadcast(std::span(v), 3); }) == (c.rank() == 3 ? 3200 : 0));
    CHECK(sent_to_each([&] { c.send(std::as_bytes(std::span(v)), 0); }) == (c.rank() < 2 ? 0 : 1600));
    c.barrier();
  });
}

TEST_CASE("hosts of parts, and hierarchical on hosts that are not there") {
  comm::topology const hosts{{0, 1, 0, 1, 2, 2}};
  std::atomic<std::uint64_t> left{0};
  comm::threads{6}.run([&](auto& own) {
    auto c = comm::with_topology(own, hosts);
    auto part = c.split(c.rank() / 3, c.rank());
    CHECK(part.topology() == (c.rank() < 3 ? comm::topology{{0, 1, 0}} : comm::topology{{0, 1, 1}}));
    auto h = comm::with_algorithm(c, comm::algorithm::hierarchical{});
    conformance::algorithm(h);
    std::vector<float> v(1200, 1.f);
    auto const before = h.traffic();
    h.all_reduce(std::span(v));
    left += (h.traffic() - before).sent_off_host;
    conformance::expect(v[1199] == 6, "hierarchical");
    auto of_part = h.split(c.rank() / 3, c.rank());
    of_part.all_reduce(std::span(v));
    conformance::expect(v[0] == 18, "hierarchical in a part");
  });
  CHECK(left == 2 * 4800 * 2);  // three hosts, each 2 (H - 1) / H of the array
}

TEST_CASE("a trainer takes decorated worlds") {
  auto const plain = trained(comm::threads{3});
  comm::call_log log;
  CHECK(trained(comm::decorate(comm::threads{3}, comm::recording{&log})) == plain);
  CHECK(trained(comm::with_algorithm(comm::threads{3}, comm::algorithm::direct{})) == plain);
  CHECK(!log.calls().empty());
  CHECK(log.text().find("(step ") != std::string::npos);
  // In another order of additions: about the same.
  auto const ring = trained(
      comm::with_algorithm(comm::decorate(comm::threads{3}, comm::throttled{.latency = std::chrono::microseconds(10)}),
                           comm::algorithm::ring{}));
  CHECK(std::abs(ring[0] - plain[0]) < 1e-4f);
  CHECK_THROWS_AS(trained(comm::decorate(comm::threads{3}, comm::faulty{.rank = 2, .at_operation = 8})), comm::died);
}

TEST_CASE("hosts of any numbers, and parts that have moved nothing") {
  comm::threads{3}.run([](auto& own) {
    auto apart = comm::with_topology(own, comm::topology{{7, 2, 7}});
    auto c = comm::with_algorithm(apart, comm::algorithm::hierarchical{});
    std::vector<float> v(100, 1.f);
    c.all_reduce(std::span(v));
    CHECK(v[99] == 3);
    CHECK(apart.topology() == comm::topology{{0, 1, 0}});
    auto part = apart.split(0, c.rank());
    CHECK(part.traffic() == comm::traffic{});
  });
}

}  // namespace comm_decorators
