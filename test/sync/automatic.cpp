// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// compress::automatic: which candidate a bucket takes is measured, the same on all ranks, and leaves no trace.
#include <dovetail/comm.hpp>
#include <dovetail/comm/decorators.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace sync_automatic {

using namespace dovetail;

using feedback = compress::error_feedback<compress::top_k>;

// One rank's weights and gradients, which another step fills otherwise.
struct rank_memory {
  std::vector<float> weights, gradients;
  parameter_list list;
  explicit rank_memory(std::size_t n) : weights(n, 1.0f), gradients(n) {
    list.add("w", std::span<float>(weights), std::span<float>(gradients));
  }
  void fill(int rank, std::int64_t step) {
    random_stream const random{7, 0, static_cast<std::uint64_t>(step), static_cast<std::uint32_t>(rank)};
    for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] = random.uniform(i) - 0.5f;
  }
};

// A margin that a busy machine does not cross by chance. What was picked of {dense, fp16, EF top-k} on a link, by every
// rank.
struct outcome {
  std::vector<int> picks;
  std::string log;
  std::vector<std::vector<float>> weights;
};
outcome train(int ranks, std::size_t n, comm::throttled const& link, std::int64_t steps, std::int64_t every = 0) {
  outcome o{std::vector<int>(static_cast<std::size_t>(ranks)), "",
            std::vector<std::vector<float>>(static_cast<std::size_t>(ranks))};
  std::ostringstream log;
  comm::decorate(comm::threads{ranks}, link).run([&](auto& c) {
    compress::automatic const codec{compress::automatic_options{.margin = 0.4f, .every = every, .log = &log},
                                    compress::fp16{}, feedback{compress::top_k{.ratio = 0.01f}}};
    rank_memory m(n);
    auto session = sync::all_reduce{codec}.join(m.list, optim::sgd{.lr = 0.1f}, c);
    for (std::int64_t s = 0; s < steps; ++s) {
      session.begin();
      m.fill(c.rank(), s);
      session.ready(0);
      session.step();
    }
    auto const r = static_cast<std::size_t>(c.rank());
    for (auto& t : session.own(""))
      if (t.name.find("picked") != std::string::npos) {
        std::int64_t pick;
        std::memcpy(&pick, t.bytes.data(), 8);
        o.picks[r] = static_cast<int>(pick);
      }
    o.weights[r] = m.weights;
  });
  o.log = log.str();
  return o;
}

TEST_CASE("a slow link takes the codec with the fewest bytes, a fast one none, and all ranks the same") {
  for (int const ranks : {2, 3}) {
    auto const slow = train(ranks, 100'000, {.bytes_per_second = 5e6}, 2);
    for (int const p : slow.picks) CHECK(p == 2);
    for (auto const& w : slow.weights) CHECK(w == slow.weights[0]);
    CHECK(slow.log.find("error feedback + top-k") != std::string::npos);
    CHECK(slow.log.find("pays below") != std::string::npos);
    // Where a message costs a fixed time, whatever its length, nothing is faster than one dense all-reduce.
    auto const latency = train(ranks, 300, {.latency = std::chrono::milliseconds(20)}, 2);
    for (int const p : latency.picks) CHECK(p == 0);
    CHECK(latency.log.find("elements: dense") != std::string::npos);
  }
}

TEST_CASE("measuring leaves no trace: the run has the bits of one that used the picked codec from the beginning") {
  auto const automatic = train(2, 50'000, {.bytes_per_second = 5e6}, 4, 2);
  REQUIRE(automatic.picks[0] == 2);
  comm::threads{2}.run([&](auto& c) {
    rank_memory m(50'000);
    auto session = sync::all_reduce{feedback{compress::top_k{.ratio = 0.01f}}}.join(m.list, optim::sgd{.lr = 0.1f}, c);
    for (std::int64_t s = 0; s < 4; ++s) {
      session.begin();
      m.fill(c.rank(), s);
      session.ready(0);
      session.step();
    }
    CHECK(m.weights == automatic.weights[static_cast<std::size_t>(c.rank())]);
  });
}

TEST_CASE("a link that becomes slow is noticed when it is measured again, and a small gain changes nothing") {
  std::vector<int> picks;
  comm::threads{2}.run([&](auto& inner) {
    auto c = comm::decorate(inner, comm::throttled{.latency = std::chrono::milliseconds(20)});
    rank_memory m(200'000);
    compress::automatic const codec{compress::automatic_options{.margin = 0.3f, .every = 2}, compress::bf16{}};
    auto const tensors = sync::tensors_in(m.list, {0, 200'000});
    compress::bucket const b{m.gradients, tensors};
    auto const plans = sync::exchange::choose<sync::exchange::automatic>(codec, b, 2);
    sync::bucket_exchange<std::remove_const_t<decltype(codec)>> exchange(codec, plans, m.list, {0, 200'000},
                                                                         m.gradients, 2, inner.rank());
    CHECK(exchange.picked() == -1);
    auto const run = [&](auto& over, std::int64_t step) {
      m.fill(inner.rank(), step);
      exchange.run(over, m.gradients, {.step = step});
      exchange.commit();
      if (inner.rank() == 0) picks.push_back(exchange.picked());
      return exchange.times();
    };
    auto narrow = comm::decorate(inner, comm::throttled{.bytes_per_second = 1e7});
    run(c, 0);
    auto const before = exchange.spent();
    CHECK(before.bytes_sent > 0);
    run(narrow, 1);  // not measured
    CHECK(exchange.spent() == before);
    auto const times = run(narrow, 2);
    CHECK(exchange.spent().bytes_sent > before.bytes_sent);
    REQUIRE(times.size() == 2);
    CHECK(times[0].name == "dense");
    CHECK(times[1].name == "bf16");
    CHECK(times[1].bytes * 2 == times[0].bytes);
    CHECK(times[1].seconds < times[0].seconds);
    CHECK(times[1].break_even > 0);
    run(c, 4);  // as fast as the other again, but for the codec's own time: it stays
  });
  CHECK(picks[0] == 0);
  CHECK(picks[1] == 0);
  CHECK(picks[2] == 1);
}

TEST_CASE("what is wrong is refused") {
  std::vector<float> const x(4);
  auto const refused = [&](auto&& change) {
    compress::automatic codec{compress::bf16{}};
    change(codec.options);
    CHECK_THROWS_AS(codec.init({x, {}}), argument_error);
  };
  refused([](auto& c) { c.trials = 0; });
  refused([](auto& c) { c.margin = 1; });
  refused([](auto& c) { c.every = -1; });
  CHECK(compress::automatic{compress::bf16{}, compress::fp16{}}.name() == "automatic: dense, bf16, fp16");
}

TEST_CASE("the number of a candidate that there is not is decided anew, and gradients are summed") {
  comm::threads{2}.run([](auto& c) {
    arena a({{"w", {300}}});
    sync::all_reduce const policy{compress::automatic{compress::bf16{}}};
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
    for (auto& t : session.own("")) {
      std::int64_t const other = 99;
      if (t.name.ends_with("picked")) std::memcpy(t.bytes.data(), &other, sizeof other);
    }
    session.begin();
    for (float& g : a.gradients()) g = static_cast<float>(c.rank() + 1);
    session.ready(0);
    session.step();
    for (float const w : a.weights()) REQUIRE(std::abs(w + 3) <= 0);
  });
}

TEST_CASE("what a skipped step has decided is taken back with it") {
  comm::threads{2}.run([](auto& c) {
    arena a({{"w", {300}}});
    sync::all_reduce const policy{compress::automatic{compress::bf16{}}};
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 1}, c);
    auto const picked = [&] {
      std::int64_t n = 99;
      for (auto& t : session.own(""))
        if (t.name.ends_with("picked")) std::memcpy(&n, t.bytes.data(), sizeof n);
      return n;
    };
    for (bool const bad : {true, false}) {
      session.begin();
      for (float& g : a.gradients()) g = 1;
      if (bad) a.gradients()[7] = std::numeric_limits<float>::quiet_NaN();
      session.ready(0);
      CHECK(session.step().skipped == bad);
      CHECK((picked() == -1) == bad);
    }
  });
}

}  // namespace sync_automatic
