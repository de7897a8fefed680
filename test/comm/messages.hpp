// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <time.h>

#include <dovetail/comm/endpoint.hpp>
#include <dovetail/core/philox.hpp>

#include "conformance.hpp"

// What messages between two ranks must do on every communicator, as functions of one rank; and what goes on when a rank
// is lost.
namespace messages {

using namespace dovetail;
using conformance::expect;

/// A message that says who sent it, as which one, and how long it is.
inline std::vector<std::byte> made(int from, std::uint64_t number, std::size_t bytes) {
  std::vector<std::byte> m(bytes);
  random_stream const random{number, static_cast<std::uint32_t>(from)};
  for (std::size_t i = 0; i < bytes; ++i) m[i] = static_cast<std::byte>(random.word(i));
  return m;
}
inline std::size_t length(std::uint64_t number) {
  std::size_t const lengths[] = {0, 1, 7, 64, 1000, 65536, 65537, 300001};
  return lengths[number % 8];
}

/// Every rank sends 24 messages of all lengths to rank 0 (to itself, too), with tags of three kinds. Rank 0 takes them
/// from whomever they come, some by their tags first. Those of one rank and tag come in their order.
template <class C>
void deliver(C& c) {
  constexpr std::uint64_t each = 24;
  for (std::uint64_t i = 0; i < each; ++i) c.send(made(c.rank(), i, length(i)), 0, static_cast<int>(i % 3));
  if (c.rank() == 0) {
    std::map<std::pair<int, int>, std::uint64_t> next;  // of (rank, tag)
    std::vector<std::byte> data;
    auto const take = [&](int from, int tag) {
      auto const waiting = c.wait_message(from, tag);
      expect(c.probe(waiting.from, waiting.tag) == waiting, "a message that waits has gone");
      auto const e = c.recv(data, waiting.from, waiting.tag);
      expect(e == waiting && e.bytes == data.size(), "another message than the one that waited");
      expect((from < 0 || e.from == from) && (tag < 0 || e.tag == tag), "not what was asked for");
      auto& n = next[{e.from, e.tag}];
      auto const number = 3 * n + static_cast<std::uint64_t>(e.tag);
      ++n;
      expect(e.bytes == length(number), "message ", number, " of rank ", e.from, " has ", e.bytes, " bytes");
      expect(data == made(e.from, number, e.bytes), "message ", number, " of rank ", e.from);
    };
    for (int r = c.size(); r-- > 0;) take(r, comm::any_tag);
    for (int r = 0; r < c.size(); ++r) take(comm::any_rank, 2);
    take(c.size() - 1, 1);
    for (std::uint64_t left =
             each * static_cast<std::uint64_t>(c.size()) - 2 * static_cast<std::uint64_t>(c.size()) - 1;
         left > 0; --left)
      take(comm::any_rank, comm::any_tag);
    expect(!c.probe() && !c.probe(c.size() - 1, 1) && !c.probe(0), "there is more than was sent");
  }
  c.barrier();
}

/// In a ring, and with oneself; the lengths differ.
template <class C>
void shift(C& c) {
  int const next = (c.rank() + 1) % c.size(), before = (c.rank() + c.size() - 1) % c.size();
  for (std::uint64_t n = 0; n < 8; ++n) {
    auto const bytes = [&](int r) { return length(n + static_cast<std::uint64_t>(r)); };
    auto const mine = made(c.rank(), n, bytes(c.rank()));
    std::vector<std::byte> theirs(bytes(before));
    c.sendrecv(mine, next, theirs, before, 5);
    expect(theirs == made(before, n, theirs.size()), "what came around");
  }
}

/// The messages of a duplicate are not those of the first one, and collectives of both may alternate.
template <class C>
void duplicates(C& c) {
  auto d = c.duplicate();
  expect(d.rank() == c.rank() && d.size() == c.size(), "a duplicate has the same ranks");
  c.send(made(c.rank(), 1, 10), 0, 1);
  d.send(made(c.rank(), 2, 20), 0, 1);
  c.barrier();
  d.barrier();
  if (c.rank() == 0)
    for (int r = 0; r < c.size(); ++r) {
      std::vector<std::byte> data;
      expect(d.recv(data, r, 1).bytes == 20 && data == made(r, 2, 20), "a message of the duplicate");
      expect(c.recv(data, r, 1).bytes == 10 && data == made(r, 1, 10), "a message of the first");
    }
  c.barrier();
}

template <class C>
void all(C& c) {
  deliver(c);
  shift(c);
  duplicates(c);
  auto again = c.shrink();  // nobody is lost
  expect(again.rank() == c.rank() && again.size() == c.size() && c.lost_ranks().empty(), "all are left");
  again.barrier();
}

/// Seconds of processor time of this thread.
inline double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Rank 0 serves: it waits for longer than the deadline, hears all that a lost rank had sent before it hears that it is
/// lost, once, and goes on with the others. Then all who are left shrink, and sum. `die()` does not return.
template <class C, class Die>
void survive(C& c, int victim, Die die) {
  using namespace std::chrono_literals;
  std::vector<std::byte> data;
  std::vector<float> v(5000, 1.0f);
  c.all_reduce(std::span(v));
  if (c.rank() == 0) {
    double const before = thread_seconds();
    std::map<int, int> heard;
    int lost = -1;
    c.wait_message(victim, 1);  // it stays, whatever becomes of its sender
    for (int i = 0; i < 500 && c.lost_ranks().empty(); ++i) std::this_thread::sleep_for(10ms);
    expect(c.lost_ranks() == std::vector<int>{victim}, "nobody is lost");
    expect(c.recv(data, victim, 1).bytes == 1000, "what was there before");
    ++heard[victim];
    for (int ends = 0; ends < c.size() - 2 || lost < 0;) try {
        auto const e = c.wait_message();
        expect(e.from != lost, "a message of a lost rank behind the news");
        c.recv(data, e.from, e.tag);
        ++heard[e.from];
        if (e.tag == 9) ++ends;
        if (e.tag == 2) c.send(data, e.from, 3);  // messages between the others go on
      } catch (rank_lost const& e) {
        expect(lost < 0, "a second loss: ", e.what());
        expect(e.rank == victim, "not the one that was lost: ", e.what());
        lost = e.rank;
        expect(heard[lost] == 5, "what the lost rank had sent: ", heard[lost]);
        expect(c.lost_ranks() == std::vector<int>{victim}, "it is known");
      }
    expect(thread_seconds() - before < 0.3, "an idle server takes the core: ", thread_seconds() - before, " s");
    expect(lost == victim, "nobody was lost");
  } else {
    for (int i = 0; i < 5; ++i) c.send(made(c.rank(), 4, 1000), 0, 1);  // MPI keeps longer ones back, with the sender
    std::this_thread::sleep_for(c.rank() == victim ? 250ms : 500ms);
    if (c.rank() == victim) die();
    c.send(made(c.rank(), 5, 70000), 0, 2);
    c.recv(data, 0, 3);
    expect(data == made(c.rank(), 5, 70000), "what was sent back");
    c.send({}, 0, 9);
  }
  // Whoever calls a collective hears it, at once and again.
  for (int i = 0; i < 2; ++i) try {
      c.all_reduce(std::span(v));
      expect(false, "a sum of a rank that is lost");
    } catch (rank_lost const& e) {
      expect(e.rank == victim, "not the one that was lost: ", e.what());
    }
  try {
    c.send(made(0, 1, 10), victim);
    expect(false, "a message to a rank that is lost");
  } catch (rank_lost const& e) {
    expect(e.rank == victim, "not the one that was lost: ", e.what());
  }
  auto rest = c.shrink();
  expect(rest.size() == c.size() - 1, "there are ", rest.size(), " left");
  expect(rest.rank() == c.rank() - (c.rank() > victim), "in their order");
  std::fill(v.begin(), v.end(), 1.0f);
  rest.all_reduce(std::span(v));
  expect(v[4999] == static_cast<float>(rest.size()), "the sum of those who are left");
  all(rest);
}

}  // namespace messages
