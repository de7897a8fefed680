// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/comm/algorithms.hpp>
#include <dovetail/concepts.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "algorithms.hpp"

namespace comm_algorithms {

using namespace dovetail;
using namespace std::chrono_literals;
using comm::operation;
namespace algorithm = comm::algorithm;

template <class A>
using on_threads = comm::algorithm_communicator<comm::threads::communicator, A>;
static_assert(communicator<on_threads<algorithm::ring>> && elastic_communicator<on_threads<algorithm::ring>>);
static_assert(on_threads<algorithm::direct>::sums == comm::sum_order::rank_order);
static_assert(on_threads<algorithm::ring>::sums == comm::sum_order::same_on_all);
static_assert(on_threads<algorithm::bruck>::sums == comm::sum_order::rank_order);  // it leaves sums to threads
static_assert(comm::collective_algorithm<algorithm::automatic>);
struct drifting : comm::self {
  static constexpr comm::sum_order sums = comm::sum_order::unspecified;
};
static_assert(comm::algorithm_communicator<drifting, algorithm::automatic>::sums == comm::sum_order::unspecified);
static_assert(comm::algorithm_communicator<drifting, algorithm::ring>::sums == comm::sum_order::same_on_all ||
              !algorithm::ring::implements.has(operation::reduce_scatter));

namespace {

constexpr std::array operations{operation::all_reduce, operation::reduce_scatter, operation::all_gather,
                                operation::all_to_all, operation::broadcast};

/// All ranks' schedules of one collective, run on numbers without communication: every send must find its recv, nobody
/// may wait for ever, and no step may send what it receives.
class simulation {
 public:
  template <class A>
  simulation(A const& a, comm::collective c) : c_(c) {
    for (c.rank = 0; c.rank < c.ranks; ++c.rank) {
      auto& r = ranks_.emplace_back();
      r.schedule = a.plan(c);
      r.scratch.assign(r.schedule.scratch_bytes / 8, 0xdead);
      auto const own = shard(c.count, c.ranks, c.rank);
      for (std::size_t i = 0; i < c.count; ++i) r.data.push_back(start(c.rank, i));
      if (c.op == operation::all_gather) {
        r.input.assign(r.data.begin() + static_cast<std::ptrdiff_t>(own.begin),
                       r.data.begin() + static_cast<std::ptrdiff_t>(own.end));
        std::fill(r.data.begin(), r.data.end(), 0xdead);
      } else if (c.op == operation::all_to_all) {
        std::swap(r.input, r.data);
        r.data.assign(c.count, 0xdead);
      }
    }
  }
  /// What is wrong; empty: nothing. `waits`: a step ends when what it sent was received, as without room for messages.
  std::string run(bool waits) {
    waits_ = waits;
    for (bool moved = true; moved;) {
      moved = false;
      for (int r = 0; r < c_.ranks; ++r) moved = go_on(r) || moved;
      if (!wrong_.empty()) return wrong_;
    }
    for (int r = 0; r < c_.ranks; ++r)
      if (at(r).step < at(r).schedule.steps.size()) return message("rank ", r, " waits for ever");
    for (auto const& [pair, messages] : wires_)
      if (!messages.empty()) return message("rank ", pair.second, " never receives what rank ", pair.first, " sent");
    for (int r = 0; r < c_.ranks; ++r)
      for (std::size_t i = 0; i < c_.count; ++i)
        if (auto const want = expected(r, i); want.first && at(r).data[i] != want.second)
          return message("element ", i, " on rank ", r, " is wrong");
    return {};
  }
  comm::schedule const& schedule_of(int r) { return at(r).schedule; }

 private:
  struct one_rank {
    comm::schedule schedule;
    std::vector<std::uint64_t> input, data, scratch;
    std::size_t step = 0, received = 0;
    bool sent = false;
  };
  static std::uint64_t start(int r, std::size_t i) { return conformance::mix(r, i, 1); }
  one_rank& at(int r) { return ranks_[static_cast<std::size_t>(r)]; }
  std::span<std::uint64_t> see(int r, comm::region const& g) {
    auto& k = at(r);
    bool const aside = (c_.op == operation::all_gather || c_.op == operation::all_to_all);
    auto& all = g.where == comm::memory::scratch          ? k.scratch
                : g.where == comm::memory::input && aside ? k.input
                                                          : k.data;
    if (g.begin % 8 != 0 || g.size % 8 != 0 || (g.begin + g.size) / 8 > all.size()) {
      wrong_ = message("rank ", r, " uses bytes ", g.begin, " to ", g.begin + g.size, " of ", all.size() * 8);
      return {};
    }
    return std::span(all).subspan(g.begin / 8, g.size / 8);
  }
  bool go_on(int r) {
    auto& k = at(r);
    if (k.step == k.schedule.steps.size()) return false;
    auto const& step = k.schedule.steps[k.step];
    bool moved = !k.sent;
    if (!k.sent)
      for (auto const& t : step.sends) {
        auto const what = see(r, t.what);
        if (t.peer == r || t.peer < 0 || t.peer >= c_.ranks) wrong_ = message("rank ", r, " sends to ", t.peer);
        if (!what.empty()) wires_[{r, t.peer}].emplace_back(what.begin(), what.end());
        for (auto const& u : step.recvs)
          if (u.what.where == t.what.where && u.what.begin < t.what.begin + t.what.size &&
              t.what.begin < u.what.begin + u.what.size)
            wrong_ = message("rank ", r, " receives what it sends");
      }
    k.sent = true;
    for (; k.received < step.recvs.size(); ++k.received) {
      auto const& t = step.recvs[k.received];
      auto const to = see(r, t.what);
      if (to.empty()) continue;
      auto& wire = wires_[{t.peer, r}];
      if (wire.empty()) return moved;
      if (wire.front().size() != to.size()) wrong_ = message("a message to rank ", r, " has another size");
      if (!wrong_.empty()) return false;
      std::copy(wire.front().begin(), wire.front().end(), to.begin());
      wire.pop_front();
      moved = true;
    }
    for (auto const& t : step.sends)
      if (waits_ && !wires_[{r, t.peer}].empty()) return moved;
    for (auto const& w : step.then) {
      auto const to = see(r, w.to);
      std::vector<std::uint64_t> sum(to.size());
      for (auto const& from : w.from) {
        auto const x = see(r, from);
        if (x.size() != to.size()) wrong_ = message("rank ", r, " adds arrays of different sizes");
        for (std::size_t i = 0; i < std::min(x.size(), sum.size()); ++i) sum[i] += x[i];
      }
      std::copy(sum.begin(), sum.end(), to.begin());
    }
    ++k.step, k.received = 0, k.sent = false;
    return true;
  }
  std::pair<bool, std::uint64_t> expected(int r, std::size_t i) const {
    auto const own = shard(c_.count, c_.ranks, r);
    auto const n = c_.count / static_cast<std::size_t>(c_.ranks);
    switch (c_.op) {
      case operation::all_gather: {
        int owner = 0;
        while (shard(c_.count, c_.ranks, owner).end <= i) ++owner;
        return {true, start(owner, i)};
      }
      case operation::all_to_all:
        return {true, start(static_cast<int>(i / n), static_cast<std::size_t>(r) * n + i % n)};
      case operation::broadcast:
        return {true, start(c_.root, i)};
      default: {
        std::uint64_t sum = 0;
        for (int q = 0; q < c_.ranks; ++q) sum += start(q, i);
        return {c_.op == operation::all_reduce || (i >= own.begin && i < own.end), sum};
      }
    }
  }

  comm::collective c_;
  std::vector<one_rank> ranks_;
  std::map<std::pair<int, int>, std::deque<std::vector<std::uint64_t>>> wires_;
  std::string wrong_;
  bool waits_ = false;
};

template <class A>
void simulate(A const& a, int ranks, std::vector<std::size_t> const& counts) {
  for (auto const op : operations) {
    if (!A::implements.has(op)) continue;
    for (auto count : counts) {
      if (op == operation::all_to_all) count -= count % static_cast<std::size_t>(ranks);
      int const root = op == operation::broadcast ? (ranks * 2) / 3 : -1;
      CAPTURE(a.name);
      CAPTURE(ranks);
      CAPTURE(count);
      CAPTURE(comm::name_of(op));
      for (bool const waits : {false, true}) {
        simulation s(a, {op, ranks, 0, root, count, 8});
        CHECK(s.run(waits) == "");
      }
    }
  }
}

comm::topology hosts_of(int ranks, int hosts, bool scattered) {
  std::vector<int> labels;
  for (int r = 0; r < ranks; ++r) labels.push_back(scattered ? r % hosts : r * hosts / ranks);
  return comm::topology::of(labels);
}

template <class F>
void for_every_algorithm(F const& f) {
  for (auto const k : algorithm::kinds) algorithm::chosen{k}.visit(f);
}

}  // namespace

TEST_CASE("all ranks' schedules fit together, and give the right result, on 1 to 33 ranks") {
  for (int ranks = 1; ranks <= 33; ++ranks) {
    auto const p = static_cast<std::size_t>(ranks);
    for_every_algorithm([&](auto const& a) { simulate(a, ranks, {0, 1, p - 1, p, p + 1, 7 * p + 3}); });
    for (int hosts = 1; hosts <= std::min(ranks, 5); ++hosts)
      for (bool const scattered : {false, true})
        simulate(algorithm::hierarchical{hosts_of(ranks, hosts, scattered)}, ranks, {1, p, 3 * p + 1});
  }
  simulate(algorithm::torus_2d{2, 6}, 12, {1, 12, 100});
  simulate(algorithm::torus_2d{12, 1}, 12, {1, 12, 100});
}

TEST_CASE("pieces of trees and rings fit together") {
  for (int const ranks : {2, 3, 7, 12}) {
    simulate(algorithm::double_binary_tree{.piece_bytes = 64}, ranks, {1, 100, 333});
    simulate(algorithm::ring{.broadcast_piece_bytes = 64}, ranks, {1, 100, 333});
  }
}

TEST_CASE("no rank has children in both binary trees") {
  for (int ranks = 2; ranks <= 40; ++ranks) {
    std::vector<int> inner[2];
    for (int which = 0; which < 2; ++which)
      for (int r = 0; r < ranks; ++r) {
        int const p = algorithm::double_binary_tree::parent(ranks, r, which);
        int const above = p < 0 ? p : algorithm::double_binary_tree::parent(ranks, p, which);
        if (p >= 0 && above >= 0) inner[which].push_back(p);  // the root has one child and is left out
      }
    for (int const r : inner[0]) {
      CAPTURE(ranks);
      CHECK(std::find(inner[1].begin(), inner[1].end(), r) == inner[1].end());
    }
  }
}

TEST_CASE("what algorithms are known to cost") {
  std::size_t const S = 12 * 8 * 100;
  auto const of = [&](auto const& a, operation op, int ranks, int rank) {
    return comm::cost(a, {op, dtype::f64, comm::reduction::sum, 0, S / 8, {}}, ranks, rank);
  };
  for (int r = 0; r < 12; ++r) {
    CHECK(of(algorithm::ring{}, operation::all_reduce, 12, r).traffic.bytes_sent == 2 * S * 11 / 12);
    CHECK(of(algorithm::ring{}, operation::all_reduce, 12, r).steps == 22);
    CHECK(of(algorithm::direct{}, operation::all_reduce, 12, r).traffic.bytes_sent == 2 * S * 11 / 12);
    CHECK(of(algorithm::direct{}, operation::all_reduce, 12, r).steps == 2);
    CHECK(of(algorithm::torus_2d{3, 4}, operation::all_reduce, 12, r).steps == 2 * (3 + 4 - 2));
    CHECK(of(algorithm::torus_2d{3, 4}, operation::all_reduce, 12, r).traffic.bytes_sent == 2 * S * 11 / 12);
    CHECK(of(algorithm::bruck{}, operation::all_gather, 12, r).steps == 4);
    CHECK(of(algorithm::bruck{}, operation::all_gather, 12, r).traffic.bytes_received == S * 11 / 12);
    CHECK(of(algorithm::double_binary_tree{}, operation::all_reduce, 12, r).traffic.bytes_sent <= 2 * S);
  }
  for (int r = 0; r < 8; ++r) {
    CHECK(of(algorithm::recursive_doubling{}, operation::all_reduce, 8, r).steps == 3);
    CHECK(of(algorithm::recursive_doubling{}, operation::all_reduce, 8, r).traffic.bytes_sent == 3 * S);
    CHECK(of(algorithm::halving_doubling{}, operation::all_reduce, 8, r).steps == 6);
    CHECK(of(algorithm::halving_doubling{}, operation::all_reduce, 8, r).traffic.bytes_sent == 2 * S * 7 / 8);
  }
  // What it has not is counted as direct, and as communicators count.
  CHECK(of(algorithm::recursive_doubling{}, operation::all_gather, 8, 3) ==
        of(algorithm::direct{}, operation::all_gather, 8, 3));
}

TEST_CASE("hierarchical: what leaves a host is what a ring of one rank per host sends") {
  std::size_t const n = 4 * 3 * 100;
  for (bool const scattered : {false, true}) {
    auto const hosts = hosts_of(12, 4, scattered);
    std::vector<std::uint64_t> left(4);
    for (int r = 0; r < 12; ++r) {
      auto const c =
          comm::cost(algorithm::hierarchical{}, {operation::all_reduce, dtype::f32, {}, -1, n, {}}, 12, r, hosts);
      left[static_cast<std::size_t>(hosts.host(r))] += c.traffic.sent_off_host;
    }
    for (auto const bytes : left) CHECK(bytes == 2 * n * 4 * 3 / 4);
  }
}

TEST_CASE("every algorithm on 1 to 9 threads: results, equal bits, and the traffic that was predicted") {
  for (int ranks = 1; ranks <= 9; ++ranks)
    for (auto const k : algorithm::kinds) {
      CAPTURE(ranks);
      CAPTURE(algorithm::name_of(k));
      comm::with_algorithm(comm::threads{ranks}, algorithm::chosen{k, hosts_of(ranks, std::min(ranks, 3), true)})
          .run([&](auto& c) { conformance::algorithm(c); });
    }
}

TEST_CASE("zeros with signs and NaNs: the order of two operands matters, and all ranks get the same bits") {
  for (int const ranks : {2, 4, 5, 8})
    for (auto const k : algorithm::kinds)
      comm::with_algorithm(comm::threads{ranks}, algorithm::chosen{k}).run([&](auto& c) {
        std::uint32_t const kinds[] = {0x80000000u, 0u, 0x7fc00001u, 0xffc00002u, 0x3f800000u};  // -0, 0, NaN, NaN, 1
        for (auto const how : {comm::reduction::sum, comm::reduction::min, comm::reduction::max}) {
          std::vector<float> v(500);
          for (std::size_t i = 0; i < v.size(); ++i)
            v[i] = std::bit_cast<float>(kinds[conformance::mix(c.rank(), i, 2) % std::size(kinds)]);
          c.all_reduce(std::span(v), how);
          std::vector<float> all(v.size() * static_cast<std::size_t>(ranks));
          c.inner().all_gather(std::span<float const>(v), std::span(all));
          for (std::size_t r = 0; r < static_cast<std::size_t>(ranks); ++r)
            conformance::expect(std::memcmp(v.data(), all.data() + r * v.size(), v.size() * sizeof(float)) == 0,
                                name_of(k), " on ", ranks, " ranks: other bits on rank ", r);
        }
      });
}

TEST_CASE("direct gives the bits and the traffic of the communicator itself") {
  std::uint64_t own = 0, direct = 0;
  comm::threads{3}.run([&](auto& c) {
    auto const d = conformance::all(c);
    if (c.rank() == 0) own = d;
  });
  comm::with_algorithm(comm::threads{3}, algorithm::direct{}).run([&](auto& c) {
    auto const d = conformance::all(c);
    if (c.rank() == 0) direct = d;
  });
  CHECK(own == direct);
}

TEST_CASE("arrays of several pieces") {
  std::size_t const n = (std::size_t{3} << 20) / 4 + 5;
  for (auto const k : {algorithm::kind::direct, algorithm::kind::ring, algorithm::kind::double_binary_tree})
    comm::with_algorithm(comm::threads{3}, algorithm::chosen{k}).run([&](auto& c) {
      std::vector<float> v(n, static_cast<float>(c.rank() + 1));
      v.back() = 0;
      c.all_reduce(std::span(v));
      conformance::expect(std::count(v.begin(), v.end(), 6.f) + 1 == static_cast<std::ptrdiff_t>(n) && v.back() == 0,
                          "pieces");
    });
}

TEST_CASE("an execution goes on by itself, step by step") {
  comm::threads{3}.run([](auto& c) {
    comm::collective const what{operation::all_reduce, 3, c.rank(), -1, 3000, 4};
    auto const plan = algorithm::ring{}.plan(what);
    comm::detail::message_transport messages(c.duplicate());
    static_assert(comm::transport<decltype(messages)> && !comm::step_transport<decltype(messages)>);
    messages.begin({operation::all_reduce, dtype::f32, comm::reduction::sum, -1, 3000, {}});
    std::vector<float> v(3000, 1.f);
    std::vector<std::byte> scratch(plan.scratch_bytes);
    auto* const data = reinterpret_cast<std::byte*>(v.data());
    comm::execution e(plan, messages, data, data, scratch.data(), 4, comm::reducer<float>(comm::reduction::sum));
    int waited = 0;
    while (!e.advance()) {
      ++waited;
      std::this_thread::yield();
    }
    conformance::expect(e.done() && v[0] == 3 && v[2999] == 3, "advance");
    if (c.rank() == 0) CHECK(waited > 0);  // nobody can have all of the others' messages at once
  });
}

TEST_CASE("a rank in another operation, or with another size, is noticed at once") {
  for (int const what : {0, 1, 2}) {
    int diverged = 0, right = 0;
    auto const begin = std::chrono::steady_clock::now();
    auto world = comm::with_algorithm(comm::threads{3, {.deadline = 20s}}, algorithm::ring{});
    try {
      world.run([&](auto& c) {
        std::vector<float> v(what == 1 && c.rank() == 1 ? 301u : 300u);
        c.about({what == 2 && c.rank() == 1 ? 8 : 7, 0});
        c.all_reduce(std::span(v), what == 0 && c.rank() == 1 ? comm::reduction::max : comm::reduction::sum);
        ++right;
      });
    } catch (rank_diverged const&) {
      ++diverged;
    }
    CHECK(diverged == 1);
    CHECK(right == 0);
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
  }
}

TEST_CASE("a rank that is lost is named by those who do not wait for it, and the rest goes on") {
  std::vector<int> named(5, -2);
  float sum = 0;
  std::string said;
  try {
    comm::with_algorithm(comm::threads{5, {.deadline = 20s}}, algorithm::ring{}).run([&](auto& c) {
      if (c.rank() == 2) throw argument_error("out of memory");
      std::vector<float> v(1000, 1.f);
      for (int again = 0; again < 2; ++again) try {
          c.all_reduce(std::span(v));
        } catch (rank_lost const& e) {
          named[static_cast<std::size_t>(c.rank())] = e.rank;
        }
      auto rest = c.shrink();
      std::fill(v.begin(), v.end(), 1.f);
      rest.all_reduce(std::span(v));
      if (c.rank() == 0) sum = v[999];
    });
  } catch (argument_error const& e) {
    said = e.what();
  }
  CHECK(said == "out of memory");
  CHECK(named == std::vector{2, 2, -2, 2, 2});
  CHECK(sum == 4);
}

TEST_CASE("parts, copies of the world, and what no group is for") {
  comm::threads{6}.run([](auto& own) {
    auto c = comm::with_algorithm(own, algorithm::torus_2d{2, 3});
    auto part = c.split(c.rank() % 2, c.rank());  // three ranks: the sides are chosen anew
    std::vector<float> v(10, 1.f);
    part.all_reduce(std::span(v));
    conformance::expect(part.size() == 3 && v[9] == 3, "a part");
    conformance::expect(part.traffic().operations == 1, "a part counts its own");
    auto same = c.duplicate();
    same.barrier();
  });
  CHECK_THROWS_AS(comm::with_algorithm(comm::threads{6}, algorithm::torus_2d{4, 2}).run([](auto&) {}), argument_error);
  comm::self alone;
  auto c = comm::with_algorithm(alone, algorithm::ring{});
  c.run([](auto& one) { one.barrier(); });
  CHECK(c.topology().hosts() == 1);
}

TEST_CASE("automatic chooses by a table, or by a model") {
  algorithm::automatic a;
  CHECK(a.choose(operation::all_reduce, 64, 16) == algorithm::kind::recursive_doubling);
  CHECK(a.choose(operation::all_reduce, 64 << 20, 16) == algorithm::kind::halving_doubling);
  CHECK(a.choose(operation::all_reduce, 64 << 20, 15) == algorithm::kind::ring);
  CHECK(a.choose(operation::all_gather, 64, 16) == algorithm::kind::bruck);
  CHECK(a.on(comm::topology::one_host(16)).choose(operation::all_reduce, 64, 16) == algorithm::kind::own);
  CHECK(a.on(hosts_of(16, 2, false)).choose(operation::all_reduce, 64 << 20, 16) == algorithm::kind::hierarchical);
  CHECK(a.on(hosts_of(16, 16, false)).choose(operation::all_reduce, 64 << 20, 16) == algorithm::kind::halving_doubling);
  a.table = algorithm::automatic::parse(
      "# ours\nall_reduce 4 1024 binomial_tree\nall_reduce 4 more ring\n\nall_reduce 8 more direct  # all\n");
  CHECK(a.table.size() == 3);
  CHECK(algorithm::automatic::parse(algorithm::automatic::text_of(a.table)) == a.table);
  CHECK(a.choose(operation::all_reduce, 1024, 3) == algorithm::kind::binomial_tree);
  CHECK(a.choose(operation::all_reduce, 1025, 4) == algorithm::kind::ring);
  CHECK(a.choose(operation::all_reduce, 1, 5) == algorithm::kind::direct);
  CHECK(a.choose(operation::all_reduce, 1, 99) == algorithm::kind::direct);
  CHECK(a.choose(operation::all_gather, 64, 16) == algorithm::kind::bruck);  // no row
  CHECK_THROWS_AS(algorithm::automatic::parse("all_reduce 4 1024 rings"), input_error);
  CHECK_THROWS_AS(algorithm::automatic::parse("all_reduce 4 x ring"), input_error);
  CHECK_THROWS_AS(algorithm::automatic::parse("all_reduce 4 ring"), input_error);
  CHECK_THROWS_AS(algorithm::automatic::parse("broadcast 4 more bruck"), input_error);  // which has none
  CHECK_THROWS_AS(algorithm::automatic::parse("all_reduce 4 more ring\nall_reduce 4 1000 direct"), input_error);
  comm::with_algorithm(comm::threads{4}, a).run([](auto& c) { conformance::algorithm(c); });
}

TEST_CASE("after a failure of the algorithm the communicator makes nothing any more, and messages go on") {
  std::atomic<int> right{0};
  comm::threads{3}.run([&](auto& own) {
    auto c = comm::with_algorithm(own, algorithm::ring{});
    std::vector<float> v(c.rank() == 1 ? 70 : 60, 1.f);
    try {
      c.all_reduce(std::span(v));
    } catch (rank_diverged const&) {
      ++right;
    }
    for (int again = 0; again < 2; ++again) try {
        again == 0 ? c.barrier() : static_cast<void>(c.split(0, 0));
      } catch (comm_error const&) {
        ++right;
      }
    std::byte one{1};
    c.send(std::span<std::byte const>(&one, 1), (c.rank() + 1) % 3);
    c.recv(std::span(&one, 1), (c.rank() + 2) % 3);
    ++right;
  });
  CHECK(right == 12);
}

TEST_CASE("an argument that lies in the result, but not at its place, is refused by every communicator") {
  comm::threads{2}.run([](auto& own) {
    auto ring = comm::with_algorithm(own, algorithm::ring{});
    auto const check = [](auto& c) {
      std::vector<float> out(8, 1.f);
      CHECK_THROWS_WITH_AS(c.all_gather(std::span<float const>(out).subspan(2, 4), std::span(out)),
                           doctest::Contains("in lies in out"), argument_error);
      auto const place = std::span<float const>(out).subspan(4 * static_cast<std::size_t>(c.rank()), 4);
      CHECK_NOTHROW(c.all_gather(place, std::span(out)));
    };
    check(own);
    check(ring);
  });
}

}  // namespace comm_algorithms
