// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Summed inside of hosts, encoded between them: on ranks that are threads and say that they are on several hosts.
#include <dovetail/comm.hpp>
#include <dovetail/comm/decorators.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"
#include "pulled.hpp"

namespace sync_hierarchical {

using namespace dovetail;
namespace exchange = sync::exchange;
using bytes = std::vector<std::byte>;

static_assert(synchronizer<sync::all_reduce<compress::int8, exchange::hierarchical<>>, optim::adamw,
                           comm::threads::communicator>);

namespace {

using hosts_of_ranks = std::vector<int>;
std::vector<hosts_of_ranks> const layouts{{0},          {0, 0, 0, 0}, {0, 1},
                                          {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 0, 0, 0, 1, 1, 1, 1},
                                          {0, 0, 0, 1}, {0, 1, 1, 1}, {0, 0, 1, 2, 2, 2}};

constexpr std::size_t bucket_bytes = 160;  // three of odd_arena's: d and e, c, a and b
constexpr std::uint64_t skipped_step = 3;

struct rank_outcome {
  std::vector<float> weights;
  bytes own;
  comm::traffic moved, said;
  int skipped = 0;
};

/// Steps of which one is skipped, on communicator `c`; fill(gradients, step) gives this rank's.
template <class Sync, class C, class Fill, class Moved, class Said>
rank_outcome train(Sync const& policy, C& c, Fill const& fill, Moved const& moved, Said const& said) {
  rank_outcome out;
  auto a = test::odd_arena();
  test::fill(a.weights(), 0, 1000);
  auto session = policy.join(a.parameters(), optim::sgd{.lr = 0.01f}, c);
  auto const before = moved(session);
  for (std::uint64_t s = 0; s < 6; ++s) {
    session.begin();
    fill(a.gradients(), s);
    out.said = out.said + said(a.parameters(), static_cast<std::int64_t>(s));
    for (std::size_t i = a.parameters().size(); i-- > 0;) session.ready(a.parameters().offset(i));
    out.skipped += session.step().skipped;
  }
  out.moved = moved(session) - before;
  out.weights.assign(a.weights().begin(), a.weights().end());
  for (auto const& t : session.own("")) out.own.insert(out.own.end(), t.bytes.begin(), t.bytes.end());
  return out;
}

void fill_of(std::span<float> gradients, int rank, std::uint64_t step, bool bad) {
  test::fill(gradients, rank, step);
  if (bad && step == skipped_step) gradients[700] = std::numeric_limits<float>::quiet_NaN();
}

template <class Codec>
std::vector<rank_outcome> hierarchical(Codec const& codec, hosts_of_ranks const& hosts) {
  std::vector<rank_outcome> all(hosts.size());
  comm::threads(static_cast<int>(hosts.size())).run([&](auto& thread) {
    auto c = comm::with_topology(thread, comm::topology::of(hosts));
    sync::all_reduce const policy{
        .codec = codec, .plan = exchange::hierarchical{}, .bucket_bytes = bucket_bytes, .seed = 5};
    all[static_cast<std::size_t>(c.rank())] = train(
        policy, c, [&](std::span<float> g, std::uint64_t s) { fill_of(g, c.rank(), s, c.rank() + 1 == c.size()); },
        [&](auto& session) { return c.traffic() + session.traffic(); },
        [&](parameter_list const& p, std::int64_t s) { return policy.predict(p, c.topology(), c.rank(), s); });
  });
  return all;
}

/// What must come out: the plain exchange among as many ranks as there are hosts, of gradients that are the sums of
/// theirs.
template <class Codec>
std::vector<rank_outcome> of_host_sums(Codec const& codec, comm::topology const& hosts) {
  std::vector<rank_outcome> all(static_cast<std::size_t>(hosts.hosts()));
  comm::threads(hosts.hosts()).run([&](auto& c) {
    sync::all_reduce const policy{.codec = codec, .bucket_bytes = bucket_bytes, .seed = 5};
    all[static_cast<std::size_t>(c.rank())] = train(
        policy, c,
        [&](std::span<float> sums, std::uint64_t s) {
          std::vector<float> one(sums.size());
          auto const ranks = hosts.ranks_on(c.rank());
          for (int const r : ranks) {
            fill_of(one, r, s, r + 1 == hosts.ranks());
            for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = r == ranks[0] ? one[i] : sums[i] + one[i];
          }
        },
        [&](auto&) { return c.traffic(); },
        [&](parameter_list const& p, std::int64_t s) { return policy.predict(p, c.size(), c.rank(), s); });
  });
  return all;
}

template <class Codec>
void check(Codec const& codec) {
  for (auto const& on : layouts) {
    auto const hosts = comm::topology::of(on);
    CAPTURE(compress::name_of(codec));
    CAPTURE(on.size());
    CAPTURE(hosts.hosts());
    auto const found = hierarchical(codec, on);
    auto const expected =
        hosts.hosts() == 1 ? of_host_sums(compress::identity{}, hosts)[0] : of_host_sums(codec, hosts)[0];
    for (auto const& rank : found) {
      CHECK(rank.skipped == 1);
      REQUIRE(rank.weights.size() == expected.weights.size());
      REQUIRE(std::memcmp(rank.weights.data(), expected.weights.data(), 4 * rank.weights.size()) == 0);
      if (compress::codec_traits<Codec>::fixed_size) {
        CHECK(rank.moved == rank.said);
      } else {
        CHECK(rank.moved.bytes_sent <= rank.said.bytes_sent);
        CHECK(rank.moved.sent_off_host <= rank.said.sent_off_host);
      }
    }
    // All that leaves a host is what one rank of it would send in the plain exchange; and so much is kept.
    auto const plain = hosts.hosts() == 1 ? std::vector<rank_outcome>(1) : of_host_sums(codec, hosts);
    for (int h = 0; h < hosts.hosts(); ++h) {
      std::uint64_t off_host = 0;
      std::size_t kept = 0;
      for (int const r : hosts.ranks_on(h)) {
        off_host += found[static_cast<std::size_t>(r)].moved.sent_off_host;
        kept += found[static_cast<std::size_t>(r)].own.size();
      }
      CHECK(off_host == plain[static_cast<std::size_t>(h)].moved.bytes_sent);
      CHECK(kept == plain[static_cast<std::size_t>(h)].own.size());
    }
  }
}

}  // namespace

TEST_CASE("all ranks have the bits of the plain exchange of host sums, and one payload a host leaves it") {
  check(compress::identity{});
  check(compress::fp16{});
  check(compress::int8{});
  check(compress::error_feedback{compress::top_k{.ratio = 0.05f}});
  check(compress::powersgd{.rank = 2});
  check(compress::stochastic_bf16{});  // draws random numbers
  check(compress::after{2, compress::identity{}, compress::error_feedback{compress::sign{}}});
}

TEST_CASE("what is exchanged between hosts goes as is wished, and of the others it is said that they sum") {
  comm::threads(4).run([](auto& thread) {
    auto c = comm::with_topology(thread, comm::topology::of(hosts_of_ranks{0, 0, 1, 1}));
    auto a = test::odd_arena();
    auto const plans = [&](auto wish) {
      sync::all_reduce const policy{.codec = compress::int8{}, .plan = wish, .bucket_bytes = bucket_bytes};
      auto session = policy.join(a.parameters(), optim::sgd{}, c);
      std::vector<exchange::plan> all;
      for (std::size_t i = 0; i < session.bucket_count(); ++i) all.push_back(session.plan_of(i));
      return all;
    };
    using enum exchange::plan;
    auto const expect = [&](exchange::plan p) {
      auto const sums = all_reduce;
      return c.rank() % 2 == 0 ? std::vector{p, sums, p} : std::vector{sums, p, sums};
    };
    CHECK(plans(exchange::hierarchical{}) == expect(all_gather));
    CHECK(plans(exchange::hierarchical<exchange::reduce_scatter_all_gather>{}) == expect(reduce_scatter_all_gather));
    CHECK_THROWS_WITH_AS(
        (sync::all_reduce<compress::int8, exchange::hierarchical<>>{}.predict(a.parameters(), c.topology(), 4)),
        doctest::Contains("rank 4 of the 4 ranks of a topology"), argument_error);
  });
}

namespace {

template <class Codec>
auto trainer_of(Codec const& codec, hosts_of_ranks const& hosts) {
  return train::trainer{
      test::pulled(), optim::adamw{.lr = 0.01f},
      sync::all_reduce{.codec = codec, .plan = exchange::hierarchical{}, .bucket_bytes = 25, .measure_noise = true},
      comm::with_topology(comm::threads{static_cast<int>(hosts.size())}, comm::topology::of(hosts))};
}
std::vector<float> weights_of(auto& trainer) {
  auto const w = trainer.model().memory.weights();
  return {w.begin(), w.end()};
}

}  // namespace

TEST_CASE("a run that is saved in the middle goes on with the same bits, on as many ranks of the same hosts") {
  auto const check = [](auto const& codec, hosts_of_ranks const& hosts) {
    CAPTURE(hosts.size());
    auto whole = trainer_of(codec, hosts), begun = trainer_of(codec, hosts), resumed = trainer_of(codec, hosts);
    auto const report = whole.fit(test::numbers(), {.batch = 2, .steps = 8});
    begun.fit(test::numbers(), {.batch = 2, .steps = 4});
    resumed.restore(begun.state());
    resumed.fit(test::numbers(), {.batch = 2, .steps = 8});
    CHECK(weights_of(resumed) == weights_of(whole));
    CHECK(report.step == 8);
    // What groups move counts, too.
    sync::all_reduce const policy{.codec = codec, .plan = exchange::hierarchical{}, .bucket_bytes = 25};
    comm::traffic said;
    for (int s = 0; s < 8; ++s)
      said = said + policy.predict(whole.model().parameters(), comm::topology::of(hosts), 0, s);
    CHECK(report.traffic == said);
  };
  compress::error_feedback const top{compress::top_k{.ratio = 0.05f}};
  check(top, {0, 0, 1, 1});
  check(top, {0, 0, 1});
  check(compress::powersgd{.rank = 2}, {0, 0, 0, 1, 1});
  check(compress::int8{}, {0, 0, 1, 1});

  auto two_hosts = trainer_of(top, {0, 0, 1, 1});
  two_hosts.fit(test::numbers(), {.batch = 2, .steps = 4});
  auto const on = [&](auto const& codec, hosts_of_ranks const& hosts) {
    auto t = trainer_of(codec, hosts);
    t.restore(two_hosts.state());
    t.fit(test::numbers(), {.batch = 2, .steps = 6});
  };
  CHECK_THROWS_WITH_AS(on(top, {0, 0, 1}), doctest::Contains("this run has 3"), checkpoint_error);
  for (auto const& hosts : {hosts_of_ranks{0, 0, 0, 0}, {0, 1, 1, 1}})
    CHECK_THROWS_WITH_AS(on(top, hosts),
                         doctest::Contains("it belongs to another model, optimizer or codec, or its ranks were on "
                                           "other hosts"),
                         checkpoint_error);
  // Where nothing is kept it may be any ranks.
  auto plain = trainer_of(compress::int8{}, {0, 0, 1, 1}), three = trainer_of(compress::int8{}, {0, 1, 1});
  plain.fit(test::numbers(), {.batch = 2, .steps = 4});
  three.restore(plain.state());
  CHECK_NOTHROW(three.fit(test::numbers(), {.batch = 2, .steps = 6}));
}

namespace {

/// int8 that is not the same on all ranks, or throws, at one step on one host.
struct faulty {
  static constexpr bool summable = false, fixed_size = true, unbiased = false, wants_error_feedback = false;
  enum what { nothing, throws, another_size } fault = nothing;
  static compress::no_state init(compress::bucket const&) { return {}; }
  std::size_t wire_size(std::size_t n) const { return compress::int8{}.wire_size(n) + (fault == another_size); }
  std::size_t encode(compress::bucket const& b, compress::no_state& s, std::span<std::byte> out,
                     compress::context const& c) const {
    if (fault == throws && c.step == 2) throw input_error("what this rank has to send is damaged");
    return compress::int8{}.encode(b, s, out) + (fault == another_size);
  }
  void decode_add(std::span<std::byte const> in, std::span<float> out, float weight = 1) const {
    compress::int8{}.decode_add(in.first(compress::int8{}.wire_size(out.size())), out, weight);
  }
};
static_assert(codec<faulty>);

/// What each rank threw: "lost 3", "diverged 1", "threw", or "" when it went through.
std::vector<std::string> thrown(hosts_of_ranks const& hosts, auto const& body,
                                std::chrono::milliseconds deadline = std::chrono::seconds(20)) {
  std::vector<std::string> all(hosts.size());
  try {
    comm::threads(static_cast<int>(hosts.size()), {.deadline = deadline}).run([&](auto& thread) {
      auto c = comm::with_topology(thread, comm::topology::of(hosts));
      auto& mine = all[static_cast<std::size_t>(c.rank())];
      try {
        body(c);
      } catch (rank_lost const& e) {
        mine = message("lost ", e.rank);
        throw;
      } catch (rank_diverged const& e) {
        mine = message("diverged ", e.rank);
        throw;
      } catch (std::exception const&) {
        mine = "threw";
        throw;
      }
    });
  } catch (std::exception const&) {
  }
  return all;
}

/// Five steps; before(step, bucket, session) comes before the gradients of the arena's tensor.
void steps(auto& c, auto const& codec, auto const& before) {
  auto a = test::odd_arena();
  sync::all_reduce const policy{.codec = codec, .plan = exchange::hierarchical{}, .bucket_bytes = bucket_bytes};
  auto session = policy.join(a.parameters(), optim::sgd{.lr = 0.01f}, c);
  for (int s = 0; s < 5; ++s) {
    session.begin();
    test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
    for (std::size_t i = a.parameters().size(); i-- > 0;) {
      before(s, i, session);
      session.ready(a.parameters().offset(i));
    }
    session.step();
  }
}

}  // namespace

TEST_CASE("who is lost has its own name on every rank, wherever the others wait") {
  for (auto const& hosts : {hosts_of_ranks{0, 0, 1, 1}, {0, 0, 1, 2, 2, 2}, {0, 1}})
    for (int const rank : {0, static_cast<int>(hosts.size()) - 1})
      for (std::size_t const tensor : {4u, 2u, 0u}) {
        CAPTURE(hosts.size());
        CAPTURE(rank);
        CAPTURE(tensor);
        auto const begin = std::chrono::steady_clock::now();
        auto const all = thrown(hosts, [&](auto& c) {
          steps(c, compress::int8{}, [&](int step, std::size_t i, auto&) {
            if (c.rank() == rank && step == 2 && i == tensor) throw error("it breaks");
          });
        });
        for (std::size_t r = 0; r < all.size(); ++r)
          CHECK(all[r] == (static_cast<int>(r) == rank ? std::string("threw") : message("lost ", rank)));
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));
      }
}

TEST_CASE("a rank whose codec throws while others wait inside and between is the one that is lost") {
  for (int const rank : {0, 1, 2, 3}) {
    CAPTURE(rank);
    auto const all = thrown({0, 0, 1, 1}, [&](auto& c) {
      steps(c, faulty{c.rank() == rank ? faulty::throws : faulty::nothing}, [](int, std::size_t, auto&) {});
    });
    for (std::size_t r = 0; r < all.size(); ++r)
      CHECK(all[r] == (static_cast<int>(r) == rank ? std::string("threw") : message("lost ", rank)));
  }
}

TEST_CASE("a rank that begins a step anew, or sends another size, has diverged, on every rank") {
  for (std::size_t const tensor : {2u, 0u}) {  // in the middle of a group of lanes, and behind one
    CAPTURE(tensor);
    auto const all = thrown({0, 0, 1, 1}, [&](auto& c) {
      bool begun = false;
      steps(c, compress::int8{}, [&](int step, std::size_t i, auto& session) {
        if (c.rank() != 3 || step != 2 || i != tensor || begun) return;
        begun = true;
        session.begin();
      });
    });
    for (auto const& one : all) CHECK(one == "diverged 3");
  }
  auto const all = thrown({0, 1, 2, 2}, [&](auto& c) {
    steps(c, faulty{c.rank() == 1 ? faulty::another_size : faulty::nothing}, [](int, std::size_t, auto&) {});
  });
  for (auto const& one : all) CHECK(one == "diverged 1");
}

TEST_CASE("a rank that stands still is lost by the deadline, on all of them by the same name") {
  auto const all = thrown(
      {0, 0, 1, 1},
      [&](auto& c) {
        steps(c, compress::int8{}, [&](int step, std::size_t i, auto&) {
          if (c.rank() == 3 && step == 2 && i == 2) std::this_thread::sleep_for(std::chrono::milliseconds(2500));
        });
      },
      std::chrono::milliseconds(500));
  for (auto const& one : all) CHECK(one == "lost 3");
}

TEST_CASE("the others wait for a rank that is away between two steps, longer than the deadline") {
  auto const all = thrown(
      {0, 0, 1, 1},
      [&](auto& c) {
        steps(c, compress::int8{}, [&](int step, std::size_t i, auto&) {
          if (c.rank() != 3 || step != 2 || i != 4) return;
          auto const away = c.away();
          std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        });
      },
      std::chrono::milliseconds(500));
  for (auto const& one : all) CHECK(one.empty());
}

TEST_CASE("a step that all ranks abandon after some buckets leaves no trace in the next one") {
  auto const after = [](bool abandon) {
    std::vector<float> weights;
    comm::threads(4).run([&](auto& thread) {
      auto c = comm::with_topology(thread, comm::topology::of(hosts_of_ranks{0, 0, 1, 1}));
      auto a = test::odd_arena();
      sync::all_reduce const policy{.codec = compress::error_feedback{compress::top_k{.ratio = 0.1f}},
                                    .plan = exchange::hierarchical{},
                                    .bucket_bytes = bucket_bytes};
      auto session = policy.join(a.parameters(), optim::sgd{.lr = 0.01f}, c);
      for (std::uint64_t s = 0; s < 4; ++s) {
        for (std::size_t const first : {3u, 2u})
          if (abandon && s == 2) {  // in the middle of a group of lanes, and behind one
            session.begin();
            test::fill(a.gradients(), c.rank(), 77);
            session.ready(a.parameters().offset(first));
          }
        session.begin();
        test::fill(a.gradients(), c.rank(), s);
        session.step();
      }
      if (c.rank() == 2) weights.assign(a.weights().begin(), a.weights().end());
    });
    return weights;
  };
  CHECK(after(true) == after(false));
}

TEST_CASE("who is left goes on, among the hosts that are left") {
  std::mutex mutex;
  std::vector<std::vector<float>> weights;
  comm::threads world(4, {.deadline = std::chrono::seconds(20)});
  CHECK_THROWS_WITH(world.run([&](auto& thread) {
    auto c = comm::with_topology(thread, comm::topology::of(hosts_of_ranks{0, 0, 1, 1}));
    auto a = test::odd_arena();
    sync::all_reduce const policy{.codec = compress::error_feedback{compress::top_k{.ratio = 0.1f}},
                                  .plan = exchange::hierarchical{},
                                  .bucket_bytes = bucket_bytes};
    auto session = policy.join(a.parameters(), optim::sgd{.lr = 0.01f}, c);
    using rest_of = decltype(c.shrink());
    std::optional<rest_of> rest;
    std::optional<decltype(policy.join(a.parameters(), optim::sgd{}, *rest))> next;
    std::int64_t steps = 0;
    auto const one = [&](auto& s) {
      s.begin();
      test::fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(steps));
      if (c.rank() == 1 && steps == 3) throw error("it breaks");
      s.step();
      ++steps;
    };
    while (steps < 6) try {
        next ? one(*next) : one(session);
      } catch (rank_lost const& e) {
        CHECK(e.rank == 1);
        rest.emplace(c.shrink());
        next.emplace(policy, a.parameters(), optim::sgd{.lr = 0.01f}, *rest);
        auto const r = sync::regroup(session, *next, a.parameters(), steps, *rest);
        steps = r.steps;
        CHECK(r.kept_own == (c.rank() == 3));  // the one lane is the others', who have all buckets now
      }
    std::lock_guard const lock(mutex);
    weights.emplace_back(a.weights().begin(), a.weights().end());
  }),
                    "it breaks");
  REQUIRE(weights.size() == 3);
  CHECK(weights[1] == weights[0]);
  CHECK(weights[2] == weights[0]);
}

}  // namespace sync_hierarchical
