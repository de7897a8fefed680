// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/core/trace.hpp>

#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace train_io_recorder {

using namespace dovetail;

TEST_CASE("spans record name, category, rank, bytes and a time that lies within their parent's") {
  trace t;
  {
    trace_span outer{&t, "step", "train", 3};
    trace_span inner{&t, std::string("all_reduce"), "comm", 3, 4096};
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    inner.end();
    inner.end();  // ends once
  }
  auto const e = t.events();
  REQUIRE(e.size() == 2);
  CHECK(e[0].name_view() == "all_reduce");
  CHECK(e[0].category_view() == "comm");
  CHECK(e[0].bytes == 4096);
  CHECK(e[0].rank == 3);
  CHECK(e[1].name_view() == "step");
  CHECK(e[0].duration_ns >= 2'000'000);
  CHECK(e[0].begin_ns >= e[1].begin_ns);
  CHECK(e[0].begin_ns + e[0].duration_ns <= e[1].begin_ns + e[1].duration_ns);
}

TEST_CASE("without a trace a span does nothing") {
  trace_span s{nullptr, "step", "train", 0};
  s.end();
}

TEST_CASE("a full trace drops and counts, and long names are cut") {
  trace t(3);
  for (int i = 0; i < 5; ++i) trace_span{&t, std::string(100, 'n'), std::string(100, 'c'), 0};
  CHECK(t.events().size() == 3);
  CHECK(t.dropped() == 2);
  CHECK(t.events()[0].name_view() == std::string(39, 'n'));
  CHECK(t.events()[0].category_view() == std::string(15, 'c'));
}

TEST_CASE("threads record at the same time and are told apart") {
  trace t;
  std::vector<std::thread> threads;
  for (int r = 0; r < 4; ++r)
    threads.emplace_back([&t, r] {
      for (int i = 0; i < 1000; ++i) trace_span{&t, "work", "test", r};
    });
  for (auto& thread : threads) thread.join();
  auto const events = t.events();
  REQUIRE(events.size() == 4000);
  std::set<std::pair<int, int>> pairs;
  for (auto const& e : events) pairs.emplace(e.rank, e.thread);
  CHECK(pairs.size() == 4);
}

}  // namespace train_io_recorder
