// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <dovetail/comm/self.hpp>
#include <dovetail/dovetail.hpp>

#include "../comm/conformance.hpp"
#include "gradients.hpp"

// One rank of a group, drawn at random, does in a random place of a random training what it should not; the others must
// hear of it, name it, and go on without it: as a function of one rank.
namespace test {

using namespace dovetail;
using conformance::expect;

struct fault {
  static constexpr std::array trainings{"dense",   "sparse", "signs",    "divided",    "apart",
                                        "sharded", "bytes",  "messages", "collectives"};
  /// In the order of what a victim does: throws, returns, is killed, sleeps for too long, asks for something else.
  enum kind { throws, returns, dies, stalls, diverges };
  std::size_t training;
  kind what;
  int victim;
  int step;           ///< of 6
  int where;          ///< 0 before the step, 1 between buckets, 2 behind it
  int delay;          ///< microseconds
  comm::progress by;  ///< who exchanges in sessions: a thread of its own, or who calls step

  static fault drawn(std::uint64_t seed, int ranks, std::span<kind const> kinds) {
    random_stream const random{seed};
    auto const below = [&](std::uint64_t i, std::size_t n) { return random.word(i) % n; };
    fault f{below(0, trainings.size()),
            kinds[below(1, kinds.size())],
            static_cast<int>(below(2, static_cast<std::size_t>(ranks))),
            static_cast<int>(below(3, 6)),
            static_cast<int>(below(4, 3)),
            static_cast<int>(below(5, 400)),
            below(6, 2) == 0 ? comm::progress::thread : comm::progress::caller};
    // Of two nobody knows which; and who waits for a message does not come to where they differ.
    if (f.what == diverges && (ranks < 3 || f.training == 7)) f.what = kinds[0];
    if (f.what == diverges && f.where == 1) f.where = 0;  // the communicator is the session's there
    return f;
  }
  std::string name() const {
    constexpr char const* kinds[] = {"throws", "returns", "dies", "stalls", "diverges"};
    return message(trainings[training], ": rank ", victim, ' ', kinds[what], " in step ", step, ", place ", where);
  }
};

/// Trains; the victim calls `act(communicator)` at its place, and then goes on as if nothing had been.
template <class C, class Act>
void train_until(fault const& f, C& c, Act const& act) {
  auto a = odd_arena();
  fill(a.weights(), 0, 1000);
  auto const here = [&](int step, int where) {
    if (c.rank() == f.victim && step == f.step && where == f.where) {
      std::this_thread::sleep_for(std::chrono::microseconds(f.delay));
      act(c);
    }
  };
  auto const loop = [&](auto const& sync, auto const& opt) {
    auto session = sync.join(a.parameters(), opt, c);
    for (int s = 0; s < 8; ++s) {
      here(s, 0);
      session.begin();
      if constexpr (requires { session.acquire(range{}); }) {
        session.acquire({0, 1254});
        session.release({0, 1254});
      }
      fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
      session.ready(600);
      here(s, 1);
      session.step();
      here(s, 2);
    }
    if constexpr (requires { session.finish(); }) session.finish();
  };
  optim::adamw const opt{.lr = 0.01f};
  std::string const what = fault::trainings[f.training];
  if (what == "dense") return loop(sync::all_reduce{.bucket_bytes = 500, .progress = f.by}, opt);
  if (what == "sparse")
    return loop(
        sync::all_reduce{.codec = compress::error_feedback{compress::top_k{.ratio = 0.1f}}, .bucket_bytes = 500}, opt);
  if (what == "signs")
    return loop(sync::all_reduce{.codec = compress::error_feedback{compress::sign{}},
                                 .plan = sync::exchange::reduce_scatter_all_gather{},
                                 .bucket_bytes = 500,
                                 .progress = f.by},
                opt);
  if (what == "divided") return loop(sync::fully_sharded{.bucket_bytes = 500, .progress = f.by}, opt);
  if (what == "apart") return loop(sync::local_sgd{.every = 2}, opt);
  if (what == "sharded") return loop(sync::all_reduce{.bucket_bytes = 500, .progress = f.by}, sync::shard(opt, c));
  std::vector<float> v(30000, 1.f), all(30000 * static_cast<std::size_t>(c.size()));
  std::vector<std::byte> bytes(static_cast<std::size_t>(64 * c.size())), out(bytes.size()), gathered;
  for (int s = 0; s < 8; ++s) {
    here(s, 0);
    if (what == "bytes") {
      c.all_to_all(std::span<std::byte const>(bytes), std::span(out));
      here(s, 1);
      c.all_gather_v(std::span<std::byte const>(bytes).first(static_cast<std::size_t>(c.rank())), gathered);
    } else if (what == "messages") {  // round a ring
      c.send(std::span<std::byte const>(bytes), (c.rank() + 1) % c.size(), s);
      here(s, 1);
      c.recv(std::span(out), (c.rank() + c.size() - 1) % c.size(), s);
      c.barrier();
    } else {
      c.reduce_scatter(std::span(v));
      here(s, 1);
      c.all_gather(std::span<float const>(v), std::span(all));
      c.broadcast(std::span(v), s % c.size());
      c.all_reduce(std::span(v), comm::reduction::max);
    }
    here(s, 2);
  }
}

/// What a rank that is no victim must see. Returns whether it can go on in what shrink() gives.
template <class C, class Act>
bool outlive(fault const& f, C& c, Act const& act) {
  auto const start = std::chrono::steady_clock::now();
  try {
    train_until(f, c, act);
    if (c.rank() == f.victim && f.what == fault::diverges) return false;  // named to the others
    c.barrier();                                                          // behind the last step
  } catch (rank_diverged const& e) {
    expect(f.what == fault::diverges, f.name(), ": rank ", c.rank(), " got ", e.what());
    expect(e.rank == f.victim, f.name(), ": rank ", c.rank(), " names rank ", e.rank, ": ", e.what());
    return false;
  } catch (rank_lost const& e) {
    if (c.rank() == f.victim) return false;
    expect(f.what != fault::diverges, f.name(), ": rank ", c.rank(), " got ", e.what());
    expect(e.rank == f.victim, f.name(), ": rank ", c.rank(), " names rank ", e.rank, ": ", e.what());
    expect(std::chrono::steady_clock::now() - start < std::chrono::seconds(30), f.name(), ": heard of it late");
    return true;
  }
  throw error(message(f.name(), ": rank ", c.rank(), " has not noticed"));
}

/// The survivors' communicator works.
template <class C>
void check_survivors(C& rest, int expected) {
  expect(rest.size() == expected, rest.size(), " ranks are left, not ", expected);
  std::vector<float> v(5000, 1.f);
  rest.all_reduce(std::span(v), comm::reduction::sum);
  expect(v[4999] == static_cast<float>(expected), "the sum over survivors is ", v[4999]);
}

/// Asks for what nobody else asks for.
template <class C>
void ask_for_something_else(C& c) {
  std::vector<double> odd(17, 1.0);
  c.all_reduce(std::span(odd), comm::reduction::min);
}

}  // namespace test
