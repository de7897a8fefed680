// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_faults [CASES]: what goes wrong among four ranks that all live: who is named, and how soon; and what must not go
// wrong. Each case has a communicator of its own, made after the one before it has failed. Prints a line a case.
#include <dovetail/comm/mpi.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "conformance.hpp"
#include "hosts.hpp"

using namespace dovetail;
using namespace std::chrono_literals;
using conformance::expect;
using clock_type = std::chrono::steady_clock;

namespace {
int failing_receives = 0;        // the so many-th call of MPI_Irecv from now fails
std::chrono::milliseconds wire;  // every long message takes so long
}  // namespace
extern "C" int MPI_Irecv(void* data, int n, MPI_Datatype type, int from, int tag, MPI_Comm c, MPI_Request* request) {
  if (failing_receives > 0 && --failing_receives == 0) return MPI_ERR_OTHER;
  return PMPI_Irecv(data, n, type, from, tag, c, request);
}
extern "C" int MPI_Isend(void const* data, int n, MPI_Datatype type, int to, int tag, MPI_Comm c,
                         MPI_Request* request) {
  if (n >= 65536) std::this_thread::sleep_for(wire);
  return PMPI_Isend(data, n, type, to, tag, c, request);
}

namespace {

double seconds_since(clock_type::time_point t) { return std::chrono::duration<double>(clock_type::now() - t).count(); }
double cpu() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct outcome {
  std::string kind = "nothing";
  int rank = -9;
  double seconds = 0;
  std::string what{};
};
/// What f throws on this rank.
outcome outcome_of(std::function<void()> const& f) {
  auto const start = clock_type::now();
  outcome o;
  try {
    f();
  } catch (rank_diverged const& e) {
    o = {"diverged", e.rank, 0, e.what()};
  } catch (rank_lost const& e) {
    o = {"lost", e.rank, 0, e.what()};
  } catch (comm_error const& e) {
    o = {"error", e.rank, 0, e.what()};
  } catch (argument_error const& e) {
    o = {"argument", -1, 0, e.what()};
  }
  o.seconds = seconds_since(start);
  return o;
}
void is(outcome const& o, char const* kind, int rank, double within) {
  expect(o.kind == kind && o.rank == rank && o.seconds < within, "expected ", kind, " of rank ", rank, " within ",
         within, " s, not ", o.kind, " of rank ", o.rank, " after ", o.seconds, " s: ", o.what);
}

comm::mpi* everybody = nullptr;
bool on_hosts = false;  // two of two ranks each
std::string host() { return on_hosts ? hosts::of(everybody->rank(), "2,2") : std::string(); }
comm::mpi fresh(std::chrono::milliseconds deadline, bool shared) {
  everybody->barrier();  // the deadline is for the case, not for who is late from the one before it
  return comm::mpi(MPI_COMM_WORLD, {.deadline = deadline, .shared_memory = shared, .host = host()});
}

/// f() takes no longer than promised, at least once in so many times: the machine may be busy with other work.
template <class F>
void soon(double bound, F f, int times = 5) {
  for (int i = 0;; ++i) {
    double longest = f();
    everybody->all_reduce(std::span(&longest, 1), comm::reduction::max);
    if (longest < bound) return;
    expect(i + 1 < times, "it took ", longest, " s, not ", bound);
  }
}

using test = void (*)(comm::mpi& world, bool shared);

/// One rank calls something else than the three others.
template <class Usual, class Other>
void odd_one(bool shared, int odd, Usual usual, Other other) {
  soon(0.5, [&] {
    auto c = fresh(30s, shared);
    std::vector<float> v(on_hosts ? 100'000 : 400, 1.0f);
    c.all_reduce(std::span(v));
    auto const o = outcome_of([&] {
      if (c.rank() == odd)
        other(c, v);
      else
        usual(c, v);
      c.barrier();  // who saw nothing amiss in the operation itself hears of it in the next
    });
    is(o, "diverged", odd, 20);
    return o.seconds;
  });
}

void divergence(comm::mpi&, bool shared) {
  auto const reduce = [](comm::mpi& c, std::vector<float>& v) { c.all_reduce(std::span(v)); };
  auto const gather = [](comm::mpi& c, std::vector<float>& v) { c.all_gather(std::span(v)); };
  auto const to_all = [](comm::mpi& c, std::vector<float>& v) { c.broadcast(std::span(v), 1); };
  auto const barrier = [](comm::mpi& c, std::vector<float>&) { c.barrier(); };
  auto const split = [](comm::mpi& c, std::vector<float>&) { c.split(0, 0); };
  auto const shorter = [](comm::mpi& c, std::vector<float>& v) { c.all_gather(std::span(v).first(v.size() / 2)); };
  auto const two = [=](comm::mpi& c, std::vector<float>& v) { to_all(c, v), reduce(c, v); };
  odd_one(shared, 2, reduce, gather);
  odd_one(shared, 0, gather, reduce);
  odd_one(shared, 3, barrier, to_all);
  odd_one(shared, 1, split, reduce);
  odd_one(shared, 0, gather, shorter);
  odd_one(shared, 1, reduce, two);  // rank 1 is one operation ahead
}

void innocents(comm::mpi& world, bool shared) {
  auto c = fresh(600ms, shared);
  c.barrier();
  // The root does not come; rank 3, which gets the data from rank 2, is there long before that one.
  auto const o = outcome_of([&] {
    std::vector<float> v(10);
    std::this_thread::sleep_for(c.rank() == 0 ? 2500ms : c.rank() == 3 ? 0ms : 300ms);
    c.broadcast(std::span(v), 0);
  });
  if (c.rank() != 0 || o.kind != "nothing") is(o, "lost", 0, 5);
  world.barrier();
  auto d = fresh(600ms, shared);  // a chain of messages: 3 waits for 2 for 1 for 0
  d.barrier();
  auto const p = outcome_of([&] {
    std::byte b{};
    std::this_thread::sleep_for(d.rank() == 0 ? 2500ms : d.rank() == 3 ? 0ms : 300ms);
    if (d.rank() > 0)
      d.recv(std::span(&b, 1), d.rank() - 1);
    else
      d.barrier();
  });
  is(p, "lost", 0, 5);
  world.barrier();
  auto e = fresh(400ms, shared);  // all are alive, and wait for each other
  auto const q = outcome_of([&] {
    std::byte b{};
    e.recv(std::span(&b, 1), e.rank() ^ 1);
  });
  expect(q.kind == "lost" && q.what.find("all ranks are alive") != std::string::npos, "deadlock: ", q.kind, ' ',
         q.what);
}

void progress(comm::mpi&, bool shared) {
  // An array that takes several deadlines, because the wire is slow. Between hosts rank 1 and rank 3 see nothing of it.
  auto const deadline = on_hosts ? 50ms : 800ms;
  comm::mpi c(MPI_COMM_WORLD,
              {.deadline = deadline, .shared_memory = shared, .largest_message = 65536, .host = host()});
  std::vector<float> v(2'457'600, static_cast<float>(c.rank()));  // 150 messages to each of two ranks
  c.barrier();
  auto const start = clock_type::now();
  wire = c.rank() == 0 ? 10ms : 0ms;
  c.broadcast(std::span(v), 0);
  expect(v.back() == 0, "broadcast");
  if (c.rank() != 0) return;
  std::printf("# a broadcast took %.2f s, the deadline was %.2f s\n", seconds_since(start),
              1e-3 * static_cast<double>(deadline.count()));
  expect(seconds_since(start) > (on_hosts ? 1 : 2), "this wire is not slow");
}

void freed(comm::mpi&, bool shared) {
  // The arrays of an operation that failed go while messages were under way: MPI must not touch them any more.
  for (auto const when : {5ms, 15ms, 30ms, 45ms}) {
    auto c = fresh(30s, shared);
    auto const o = outcome_of([&] {
      std::vector<float> in(c.rank() < 3 ? 24'000'000 : 0, 1.0f), out(in.size());
      c.barrier();
      c.run([&](comm::mpi& k) {
        if (k.rank() == 3) {
          std::this_thread::sleep_for(when);
          throw comm_error("on purpose", 3);
        }
        k.all_to_all(std::span<float const>(in), std::span(out));
      });
    });
    expect(o.kind == (c.rank() == 3 ? "error" : "lost") && o.rank == 3, "freed: ", o.kind, " of rank ", o.rank, ": ",
           o.what);
    expect(o.seconds < 5, "freed: it took ", o.seconds, " s");
  }
  // Nor does a rank that has left, and waits for the others to follow, take what they send.
  for (auto const when : {5ms, 15ms, 30ms, 45ms}) {
    std::optional<comm::mpi> c(fresh(30s, shared));
    int const rank = c->rank();
    auto const o = outcome_of([&] {
      std::vector<float> in(rank < 3 ? 24'000'000 : 0, 1.0f), out(in.size());
      c->barrier();
      if (rank < 3) return c->all_to_all(std::span<float const>(in), std::span(out));
      std::this_thread::sleep_for(when);
      c.reset();
    });
    expect(rank == 3 || (o.kind == "lost" && o.rank == 3), "freed: ", o.kind, " of rank ", o.rank, ": ", o.what);
    expect(o.seconds < 5, "freed: it took ", o.seconds, " s");
  }
}

void released(comm::mpi&, bool shared) {
  // Ranks that fail tell each other at once that they take nothing any more: nobody waits for that until its patience
  // of one second ends.
  soon(
      0.8,
      [&] {
        double longest = 0;
        for (int i = 0; i < 250; ++i) {
          auto c = fresh(30s, shared);
          std::vector<float> v(400'000, 1.0f);
          c.barrier();
          auto const o = outcome_of([&] {
            c.run([&](comm::mpi& k) {
              k.all_gather(std::span(v));
              if (k.rank() == i % 4) throw comm_error("on purpose", i % 4);
              k.all_gather(std::span(v));
            });
          });
          expect(o.rank == i % 4, "released: ", o.kind, " of rank ", o.rank, ": ", o.what);
          longest = std::max(longest, o.seconds);
        }
        return longest;
      },
      2);
}

// The thread sanitizer watches our copies, and not those of Open MPI.
#if defined(__SANITIZE_THREAD__)
constexpr double watched = 10;
#else
constexpr double watched = 1;
#endif

void starving(comm::mpi& world, bool shared) {
  // Rank 0 sends, and waits for all; its message moves meanwhile, about as fast as one that MPI alone sends.
  auto c = fresh(30s, shared);
  std::vector<float> v(c.rank() < 2 ? 25'000'000 : 0, 7.0f);
  int const n = static_cast<int>(v.size());
  double direct = 1e9;
  soon(0.1, [&] {
    world.barrier();
    auto start = clock_type::now();
    if (c.rank() == 0) MPI_Send(v.data(), n, MPI_FLOAT, 1, 17, MPI_COMM_WORLD);
    if (c.rank() == 1) MPI_Recv(v.data(), n, MPI_FLOAT, 0, 17, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    direct = std::min(direct, seconds_since(start));
    world.barrier();
    start = clock_type::now();
    if (c.rank() == 0) c.send(std::as_bytes(std::span(v)), 1);
    if (c.rank() == 1) c.recv(std::as_writable_bytes(std::span(v)), 0);
    double const ours = seconds_since(start);
    c.barrier();
    if (c.rank() != 1) return 0.;
    std::printf("# 100 MB in %.2f s while the sender waits; %.2f s by MPI alone\n", ours, direct);
    return ours - 4 * watched * direct;
  });
}

void waiting(comm::mpi&, bool shared) {
  auto c = fresh(30s, shared);
  c.barrier();
  auto const before = cpu();
  if (c.rank() == 3) std::this_thread::sleep_for(1s);
  c.barrier();
  double const used = cpu() - before;
  if (c.rank() == 0) std::printf("# %.0f ms of a core in 1 s of waiting\n", 1e3 * used);
  expect(used < 0.15, "waiting took ", used, " s of a core");
}

void early_return(comm::mpi&, bool shared) {
  soon(0.2, [&] {  // 20 ms on a quiet machine
    std::optional<comm::mpi> c(fresh(30s, shared));
    int const rank = c->rank();
    auto const start = clock_type::now();
    auto const o = outcome_of([&] {
      c->run([&](comm::mpi& k) {
        k.barrier();
        if (k.rank() != 2) k.barrier();
      });
    });
    c.reset();  // rank 2, which knows of no failure, must not wait for the others' end
    if (rank == 2)
      expect(o.kind == "nothing", "rank 2 threw ", o.what);
    else
      is(o, "lost", 2, 20);
    return seconds_since(start);
  });
  auto d = fresh(30s, shared);  // to return while others are still at the last operation is no offence
  for (int i = 0; i < 20; ++i)
    d.run([&](comm::mpi& k) {
      std::vector<float> v(20000, 1.0f);
      k.broadcast(std::span(v), 0);
      if (k.rank() == 1) std::this_thread::sleep_for(3ms);
      k.all_gather(std::span(v));
    });
  d.barrier();
}

void failing_mpi(comm::mpi&, bool shared) {
  auto c = fresh(5s, shared);
  std::vector<float> v(4000, 1.0f);
  failing_receives = c.rank() == 1 ? 2 : 0;
  auto const o = outcome_of([&] {
    c.reduce_scatter(std::span(v));
    c.barrier();
  });
  failing_receives = 0;
  expect(o.kind == "lost" && o.rank >= 0, "a failed MPI_Irecv passed: ", o.kind);
  if (c.rank() == 1) expect(o.what.find("MPI_Irecv failed") != std::string::npos, o.what);
}

void handles(comm::mpi& world, bool) {
  auto const refused = [](MPI_Comm c, char const* why) {
    auto const o = outcome_of([&] { comm::mpi{c}.barrier(); });
    expect(o.kind == "argument" && o.what.find(why) != std::string::npos, o.kind, ' ', o.what);
  };
  refused(MPI_COMM_NULL, "MPI_COMM_NULL");
  static_assert(std::is_same_v<MPI_Comm, int> ||
                (!std::is_constructible_v<comm::mpi, int> && !std::is_constructible_v<comm::mpi, std::nullptr_t>));
  MPI_Comm half = MPI_COMM_NULL, inter = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world.rank() % 2, 0, &half);
  MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, world.rank() % 2 ? 0 : 1, 5, &inter);
  refused(inter, "MPI_Intercomm_merge");
  MPI_Comm_free(&inter);
  MPI_Comm_free(&half);
}

void absent(comm::mpi& world, bool) {
  // Not all ranks construct it. What was begun stays with MPI, which can make no communicators then: this is the last.
  auto const o = outcome_of([&] {
    if (world.rank() == 3)
      std::this_thread::sleep_for(4s);
    else
      comm::mpi(MPI_COMM_WORLD, {.deadline = 200ms}).barrier();
  });
  if (world.rank() != 3) expect(o.kind == "lost" && o.what.find("not all ranks") != std::string::npos, o.what);
}

void full_mailbox(comm::mpi& world, bool shared) {
  comm::mpi c(MPI_COMM_WORLD, {.deadline = 200ms, .shared_memory = shared, .mailbox = {.messages = 100}});
  std::byte b{};
  c.barrier();
  if (c.rank() == 0) {
    auto const o = outcome_of([&] {
      for (int i = 0; i < 200; ++i) c.send(std::span(&b, 1), 1);
    });
    is(o, "lost", 1, 10);
    expect(o.what.find("the mailbox is full") != std::string::npos, o.what);
  }
  world.barrier();
  // What a rank that has left did not receive takes no room from the others.
  std::optional<comm::mpi> d(std::in_place, MPI_COMM_WORLD,
                             comm::mpi_options{.deadline = 2s, .shared_memory = shared, .mailbox = {.messages = 2}});
  if (d->rank() == 0)
    for (int i = 0; i < 2; ++i) d->send(std::span(&b, 1), 1);
  world.barrier();
  if (d->rank() == 1) d.reset();
  world.barrier();
  auto const p = outcome_of([&] {
    if (d && d->rank() == 0) d->send(std::span(&b, 1), 2);
    if (d && d->rank() == 2) d->recv(std::span(&b, 1), 0);
  });
  is(p, "nothing", -9, 10);
}

void own_message(comm::mpi&, bool shared) {
  comm::mpi c(MPI_COMM_WORLD, {.deadline = 200ms, .shared_memory = shared});
  std::byte b{};
  c.send(std::span(&b, 1), c.rank());
  c.recv(std::span(&b, 1), c.rank());
  if (c.rank() == 1) {
    auto const o = outcome_of([&] { c.recv(std::span(&b, 1), 1); });
    is(o, "lost", 1, 10);
    expect(o.what.find("has sent itself no such message") != std::string::npos, o.what);
  }
}

void child_process(comm::mpi&, bool shared) {
  auto c = fresh(30s, shared);
  c.barrier();
  if (c.rank() == 1) {
    pid_t const child = fork();
    if (child == 0) {
      std::string what;
      auto const start = clock_type::now();
      {
        comm::mpi own = c;
        what = outcome_of([&] { own.barrier(); }).what;
      }
      _exit(what.find("is a fork") != std::string::npos && seconds_since(start) < 1 ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child did not get its error");
  }
  c.barrier();
}

void one_core(comm::mpi&, bool shared) {
  // On one core who waits must leave it to the others.
  auto c = fresh(30s, shared);
  std::vector<float> v(65536, 1.0f);
  c.all_reduce(std::span(v));
  double direct = 1e9, ours = 1e9;
  auto const once = [&] {
    auto start = clock_type::now();
    for (int i = 0; i < 10; ++i)
      MPI_Allreduce(MPI_IN_PLACE, v.data(), static_cast<int>(v.size()), MPI_FLOAT, MPI_MAX, MPI_COMM_WORLD);
    direct = std::min(direct, seconds_since(start) / 10);
    c.barrier();
    start = clock_type::now();
    for (int i = 0; i < 10; ++i) c.all_reduce(std::span(v), comm::reduction::max);
    ours = std::min(ours, seconds_since(start) / 10);
    if (c.rank() == 0)
      std::printf("# all_reduce of 256 KB: %.2f ms, of MPI %.2f ms, on %d usable cores\n", 1e3 * ours, 1e3 * direct,
                  usable_cores());
    return ours - 4 * watched * direct;
  };
  soon(1e-3, once, 20);
}

void many(comm::mpi&, bool) {
  // In a small /dev/shm the first use shared memory and the others messages; MPI's own transport keeps its part.
  std::vector<comm::mpi> all;
  std::vector<float> v(300'000, 1.0f);
  for (int i = 0; i < 32; ++i) {
    all.push_back(fresh(30s, true));
    all.back().all_reduce(std::span(v));
    all.back().all_gather(std::span(v));
  }
}

/// Messages between two ranks are no progress of what a third one waits for.
void chatter(comm::mpi& world, bool shared) {
  auto c = fresh(400ms, shared);
  c.barrier();
  std::vector<std::byte> v(8);
  outcome o;
  if (c.rank() == 3) std::this_thread::sleep_for(4s);
  if (c.rank() == 2) o = outcome_of([&] { c.recv(std::span(v), 3); });
  if (c.rank() < 2)
    o = outcome_of([&] {
      for (auto const start = clock_type::now(); seconds_since(start) < 3.5;) {
        std::this_thread::sleep_for(c.rank() == 0 ? 60ms : 0ms);
        c.rank() == 0 ? c.send(v, 1) : c.recv(std::span(v), 0);
        c.rank() == 1 ? c.send(v, 0) : c.recv(std::span(v), 1);
        if (c.rank() == 1 && seconds_since(start) > 3.4) break;
      }
    });
  if (c.rank() == 2) is(o, "lost", 3, 2.5);
  world.barrier();
}
/// A broadcast in pieces, of which the first are alike.
void other_length(comm::mpi& world, bool shared) {
  auto c = fresh(2s, shared);
  std::vector<float> v((1u << 20) + 250, static_cast<float>(c.rank()));
  auto const o = outcome_of([&] {
    c.broadcast(std::span(v).first(c.rank() < 2 ? v.size() : std::size_t{1} << 20), 0);
    c.barrier();
  });
  expect(o.kind == "diverged" && o.seconds < 5, "other_length: ", o.kind, " of rank ", o.rank, " after ", o.seconds,
         " s: ", o.what);
  world.barrier();
}

enum ways { shared_memory = 1, messages = 2, two_hosts = 4, both = 3, all = 7 };

constexpr struct {
  char const* name;
  test run;
  int by;                   // how its operations move data
  bool when_asked = false;  // only
} tests[] = {{"divergence", divergence, all},
             {"innocents", innocents, all},
             {"progress", progress, messages | two_hosts},
             {"freed", freed, both},
             {"released", released, all},
             {"starving", starving, all},
             {"waiting", waiting, all},
             {"early_return", early_return, all},
             {"failing_mpi", failing_mpi, messages | two_hosts},
             {"full_mailbox", full_mailbox, shared_memory},
             {"own_message", own_message, shared_memory},
             {"child_process", child_process, both},
             {"one_core", one_core, both, true},
             {"many", many, shared_memory},
             {"handles", handles, shared_memory},
             {"chatter", chatter, messages},
             {"other_length", other_length, two_hosts},
             {"absent", absent, shared_memory}};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> const only(argv + 1, argv + argc);
  int status = 0;
  std::optional<comm::mpi> world(std::in_place);
  everybody = &*world;
  for (auto const& t : tests) {
    if (only.empty() ? t.when_asked : std::find(only.begin(), only.end(), t.name) == only.end()) continue;
    for (auto const by : {shared_memory, messages, two_hosts}) {
      if (!(t.by & by)) continue;
      bool const shared = by != messages;
      on_hosts = by == two_hosts;
      std::int32_t failed = 0;
      auto const start = clock_type::now();
      try {
        t.run(*world, shared);
      } catch (std::exception const& e) {
        failed = 1;
        std::printf("%s, rank %d: %s\n", t.name, world->rank(), e.what());
        std::fflush(stdout);
      }
      wire = 0ms;
      world->all_reduce(std::span(&failed, 1));
      if (world->rank() == 0)
        std::printf("%s %s %s (%.1f s)\n", failed ? "FAILED" : "ok", t.name,
                    by == shared_memory ? "shared"
                    : by == messages    ? "messages"
                                        : "on two hosts",
                    seconds_since(start));
      std::fflush(stdout);
      status |= failed != 0;
    }
  }
  world->barrier();
  world.reset();
  std::fflush(stdout);
  _exit(status);
}
