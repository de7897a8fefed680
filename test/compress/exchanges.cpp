// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every codec of the registry goes through among ranks, as it is meant to be used: within error_feedback where it
// wants that.
#include "suite.hpp"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/train/restore.hpp>

#include "../sync/gradients.hpp"
#include "../sync/summed.hpp"

namespace compress_exchanges {

using namespace dovetail;
using test::known_codec, test::known_exchange, test::thread_rank, test::wish;

compress::context at_step(std::int64_t step) { return {.step = step, .seed = 42}; }

/// Calls f(codec, wish) for all exchanges that are legal.
template <class F>
void each_exchange(F&& f) {
  test::each_codec([&](known_codec const& entry) {
    auto const& c = entry.as_used();
    for (auto const w : test::wishes)
      if (c.legal(w)) {
        INFO("exchange: ", name_of(w));
        f(c, w);
      }
  });
}

/// One rank's end of the exchange of all of an odd arena's gradients.
struct end {
  end(known_codec const& c, wish w, thread_rank& its_comm)
      : comm(its_comm), exchange(c.exchange(w, memory.parameters(), memory.gradients(), comm.size(), comm.rank())) {}

  std::span<float const> run(std::int64_t step, std::uint64_t gradients) {
    test::fill(memory.gradients(), comm.rank(), gradients);
    exchange->run(comm, memory.gradients(), at_step(step));
    return memory.gradients();
  }
  std::vector<std::byte> state() { return test::bytes_of(exchange->tensors("")); }

  arena memory = test::odd_arena();
  thread_rank& comm;
  std::unique_ptr<known_exchange> exchange;
};

/// What ranks that gather each other's payloads must end up with: encoded and decoded by hand, step by step.
std::vector<std::vector<float>> by_hand(known_codec const& c, int ranks, int steps) {
  auto memory = test::odd_arena();
  auto const tensors = sync::tensors_in(memory.parameters(), {0, memory.gradients().size()});
  compress::bucket const b{memory.gradients(), tensors};
  std::vector<std::unique_ptr<test::known_state>> states;
  for (int r = 0; r < ranks; ++r) states.push_back(c.init(b, {.rank = r, .ranks = ranks}));
  std::vector<std::vector<float>> all;
  for (int s = 0; s < steps; ++s) {
    std::vector<std::vector<std::byte>> payloads;
    auto where = at_step(s);
    where.ranks = ranks;
    for (int r = 0; r < ranks; ++r) {
      test::fill(memory.gradients(), r, static_cast<std::uint64_t>(s));
      where.rank = r;
      auto& state = *states[static_cast<std::size_t>(r)];
      state.begin();
      payloads.push_back(test::encode(c, state, b, where));
    }
    for (auto& state : states) {
      std::vector<float> sum(b.size());
      for (int r = 0; r < ranks; ++r) {
        where.rank = r;
        where.first = r == 0;
        where.last = r + 1 == ranks;
        state->decode_add(payloads[static_cast<std::size_t>(r)], sum, 1, where);
      }
      state->commit();
      if (&state == &states[0]) all.push_back(std::move(sum));
    }
  }
  return all;
}

TEST_CASE("bytes counted are bytes predicted, and all ranks hold the same bits: every exchange and 1 to 8 ranks") {
  constexpr int steps = 4;
  each_exchange([](known_codec const& c, wish w) {
    for (int ranks = 1; ranks <= 8; ++ranks) {
      CAPTURE(ranks);
      std::vector<std::vector<std::vector<float>>> sums(static_cast<std::size_t>(ranks));
      std::vector<comm::traffic> counted(sums.size()), predicted(sums.size());
      comm::threads(ranks).run([&](thread_rank& rank) {
        auto const me = static_cast<std::size_t>(rank.rank());
        end mine(c, w, rank);
        auto const before = rank.traffic();
        for (int s = 0; s < steps; ++s) {
          auto const sum = mine.run(s, static_cast<std::uint64_t>(s));
          mine.exchange->commit();
          sums[me].emplace_back(sum.begin(), sum.end());
          predicted[me] = predicted[me] + mine.exchange->predicted(s);
        }
        counted[me] = rank.traffic() - before;
      });
      for (std::size_t r = 0; r < sums.size(); ++r) {
        CAPTURE(r);
        if (c.fixed_size) {
          CHECK(counted[r].bytes_sent == predicted[r].bytes_sent);
          CHECK(counted[r].bytes_received == predicted[r].bytes_received);
        }
        CHECK(counted[r].bytes_sent <= predicted[r].bytes_sent);
        CHECK(counted[r].bytes_received <= predicted[r].bytes_received);
        if (ranks > 1) CHECK(counted[r].bytes_sent > 0);
        for (std::size_t s = 0; s < steps; ++s) REQUIRE(test::same_bits(sums[r][s], sums[0][s]));
      }
      if (w != wish::all_gather || ranks > 3) continue;
      auto const expected = by_hand(c, ranks, steps);
      for (std::size_t s = 0; s < steps; ++s) {
        CAPTURE(s);
        REQUIRE(test::same_bits(sums[0][s], expected[s]));
      }
    }
  });
}

TEST_CASE("a bucket of fewer elements than ranks is exchanged in every way") {
  each_exchange([](known_codec const& c, wish w) {
    for (std::int64_t const n : {1, 3}) {
      CAPTURE(n);
      std::vector<std::vector<float>> sums(5);
      comm::threads(5).run([&](thread_rank& rank) {
        arena memory({{"few", {n}}});
        auto const exchange = c.exchange(w, memory.parameters(), memory.gradients(), rank.size(), rank.rank());
        for (int s = 0; s < 3; ++s) {
          test::fill(memory.gradients(), rank.rank(), static_cast<std::uint64_t>(s));
          exchange->run(rank, memory.gradients(), at_step(s));
          exchange->commit();
        }
        sums[static_cast<std::size_t>(rank.rank())].assign(memory.gradients().begin(), memory.gradients().end());
      });
      for (auto const& sum : sums) REQUIRE(test::same_bits(sum, sums[0]));
    }
  });
}

TEST_CASE("state that is saved in the middle and loaded goes on as if nothing had been") {
  each_exchange([](known_codec const& c, wish w) {
    for (int const ranks : {1, 3})
      comm::threads(ranks).run([&](thread_rank& rank) {
        CAPTURE(c.label);
        CAPTURE(ranks);
        end whole(c, w, rank), begun(c, w, rank), resumed(c, w, rank);
        for (int s = 0; s < 4; ++s)
          for (auto* const e : {&whole, &begun}) {
            e->run(s, static_cast<std::uint64_t>(s));
            e->exchange->commit();
          }
        io::saved_state const saved(begun.exchange->tensors(""));
        saved.restore(resumed.exchange->tensors(""));
        CHECK(resumed.state() == whole.state());
        for (int s = 4; s < 8; ++s) {
          auto const a = whole.run(s, static_cast<std::uint64_t>(s)), b = resumed.run(s, static_cast<std::uint64_t>(s));
          whole.exchange->commit();
          resumed.exchange->commit();
          REQUIRE(test::same_bits(a, b));
        }
        CHECK(resumed.state() == whole.state());
      });
  });
}

TEST_CASE("a step that is skipped leaves what every rank keeps as it was, to the bit") {
  each_exchange([](known_codec const& c, wish w) {
    for (int const ranks : {1, 2, 4})
      comm::threads(ranks).run([&](thread_rank& rank) {
        CAPTURE(c.label);
        CAPTURE(ranks);
        end mine(c, w, rank), never(c, w, rank);
        for (int s = 0; s < 4; ++s)
          for (auto* const e : {&mine, &never}) {
            e->run(s, static_cast<std::uint64_t>(s));
            e->exchange->commit();
          }
        auto const before = mine.state();
        for (int s = 4; s < 8; ++s) {
          float const bad[] = {0, test::infinity, -test::infinity, test::not_a_number};
          test::fill(mine.memory.gradients(), rank.rank(), 90);
          if (s > 4 && rank.rank() == rank.size() - 1) mine.memory.gradients()[300] = bad[s - 4];
          mine.exchange->run(rank, mine.memory.gradients(), at_step(s));
          bool seen = false;
          for (float const v : mine.memory.gradients()) seen = seen || !is_finite(v);
          CHECK(seen == (s > 4));
          mine.exchange->rollback();
          CHECK(mine.state() == before);
        }
        for (int s = 8; s < 10; ++s) {
          auto const a = mine.run(s, static_cast<std::uint64_t>(s)), b = never.run(s, static_cast<std::uint64_t>(s));
          mine.exchange->commit();
          never.exchange->commit();
          REQUIRE(test::same_bits(a, b));
        }
        CHECK(mine.state() == never.state());
      });
  });
}

TEST_CASE("from 4 ranks to 3 the sum over ranks of what codecs keep is conserved") {
  each_exchange([](known_codec const& c, wish w) {
    if (!c.promised.regroups) return;
    std::mutex mutex;
    std::set<std::string> names;
    // Steps on so many ranks, from nothing or from what 4 ranks had.
    auto const on = [&](int ranks, io::saved_state const* from, int steps) {
      io::saved_state all;
      comm::threads(ranks).run([&](thread_rank& rank) {
        end mine(c, w, rank);
        auto const into = mine.exchange->tensors("bucket0.");
        if (from) train::summed_state(*from, into, 4).restore(into, ranks);
        for (int s = 0; s < steps; ++s) {
          bool finite = true;
          for (float const v : mine.run(s, static_cast<std::uint64_t>(s))) finite = finite && is_finite(v);
          CHECK(finite);
          mine.exchange->commit();
        }
        std::lock_guard const lock(mutex);
        auto const now = mine.exchange->tensors("bucket0.");
        all.add(now, message("rank", rank.rank(), '.'));
        for (auto const& t : now)
          if (t.kind == state_kind::summed) {
            auto const whole = t.name.substr(0, t.name.rfind('@'));
            names.insert(whole.substr(whole.rfind('.') + 1));
          }
      });
      return all;
    };
    auto const four = on(4, nullptr, 5);
    REQUIRE((names.contains("residual") || !c.has_feedback));
    if (names.empty()) return;
    auto const three = on(3, &four, 0);
    for (auto const& name : names) {
      CAPTURE(name);
      auto const before = test::sums_of(four, name, 4), after = test::sums_of(three, name, 3);
      REQUIRE(before.size() == after.size());
      for (auto const& [bucket, sum] : before) {
        double size = 0;
        REQUIRE(after.at(bucket).size() == sum.size());
        for (std::size_t i = 0; i < sum.size(); ++i) {
          size += std::fabs(sum[i]);
          REQUIRE(after.at(bucket)[i] == doctest::Approx(sum[i]).epsilon(1e-5).scale(1e-3));
        }
        CHECK(size > 0);
      }
    }
    on(3, &four, 4);
  });
}

TEST_CASE("sync::all_reduce moves what it predicts, keeps replicas equal, and skips what is not finite") {
  test::each_codec([](known_codec const& entry) {
    auto const& c = entry.as_used();
    if (c.wants_error_feedback) return;  // sync::all_reduce refuses it
    for (int const ranks : {1, 2, 3, 4}) {
      CAPTURE(ranks);
      std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
      comm::threads(ranks).run([&](thread_rank& rank) {
        CAPTURE(c.label);
        auto a = test::odd_arena();
        constexpr std::size_t bucket_bytes = 500;
        auto const session = c.session(a.parameters(), bucket_bytes, rank);
        for (int s = 0; s < 6; ++s) {
          auto const kept = s == 2 ? test::bytes_of(session->own()) : std::vector<std::byte>{};
          session->begin();
          test::fill(a.gradients(), rank.rank(), static_cast<std::uint64_t>(s));
          if (s == 2 && rank.rank() == rank.size() - 1) a.gradients()[300] = test::not_a_number;
          auto const before = rank.traffic();
          CHECK(session->step() == (s != 2));
          auto const moved = rank.traffic() - before,
                     said = c.predict(a.parameters(), bucket_bytes, rank.size(), rank.rank(), s);
          if (c.fixed_size) {
            CHECK(moved.bytes_sent == said.bytes_sent);
            CHECK(moved.bytes_received == said.bytes_received);
          }
          CHECK(moved.bytes_sent <= said.bytes_sent);
          if (s == 2) CHECK(test::bytes_of(session->own()) == kept);
        }
        weights[static_cast<std::size_t>(rank.rank())].assign(a.weights().begin(), a.weights().end());
      });
      for (auto const& w : weights) REQUIRE(test::same_bits(w, weights[0]));
      bool finite = true;
      for (float const v : weights[0]) finite = finite && is_finite(v);
      CHECK(finite);
    }
  });
}

}  // namespace compress_exchanges
