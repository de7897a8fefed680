// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/comm.hpp>
#include <dovetail/concepts.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "conformance.hpp"

namespace comm_threads {

using namespace dovetail;
using namespace std::chrono_literals;
using conformance::expect;
using communicator_type = comm::threads::communicator;

static_assert(communicator<comm::self> && world<comm::self>);
static_assert(communicator<communicator_type> && world<comm::threads>);
static_assert(std::is_nothrow_move_constructible_v<communicator_type> &&
              !std::is_copy_constructible_v<communicator_type>);

TEST_CASE("one rank does what every communicator must do") {
  std::uint64_t alone = 0;
  comm::self{}.run([&](auto& c) { alone = conformance::all(c); });
  comm::threads{1}.run([&](auto& c) { CHECK(conformance::all(c) == alone); });
}

TEST_CASE("2 to 8 threads do what every communicator must do, run after run") {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    CAPTURE(ranks);
    comm::threads const w{ranks};
    std::vector<std::uint64_t> digests(static_cast<std::size_t>(ranks));
    w.run([&](auto& c) { digests[static_cast<std::size_t>(c.rank())] = conformance::all(c); });
    for (auto const d : digests) CHECK(d == digests[0]);
  }
}

TEST_CASE("a world is a handle that runs each rank once, on a thread of its own") {
  comm::threads w{4};
  auto const copy = w;
  for (int i = 0; i < 3; ++i) {
    std::atomic<int> ranks{0};
    std::mutex m;
    std::vector<std::thread::id> ids;
    copy.run([&](communicator_type& c) {
      ranks += 1 << c.rank();
      std::lock_guard const lock(m);
      ids.push_back(std::this_thread::get_id());
    });
    CHECK(ranks == 15);
    std::sort(ids.begin(), ids.end());
    CHECK(std::unique(ids.begin(), ids.end()) == ids.end());
  }
  CHECK_THROWS_WITH_AS(comm::threads{0}, "0 ranks: a world of threads has at least one", argument_error);
  CHECK_THROWS_AS((comm::threads{2, {.deadline = 0ms}}), argument_error);
  CHECK_THROWS_AS((comm::threads{2, {.mailbox = {.messages = 0}}}), argument_error);  // send would wait for ever
  CHECK_THROWS_AS((comm::threads{2, {.mailbox = {.bytes = 0}}}), argument_error);
  CHECK_THROWS_AS(w.rank(4), argument_error);
}

TEST_CASE("callers with threads of their own take ranks, and take them again after a failure") {
  comm::threads const w{3, {.deadline = 10s}};
  for (int round = 0; round < 3; ++round) {
    std::atomic<int> lost{0};
    std::vector<std::thread> threads;
    for (int r = 0; r < 3; ++r)
      threads.emplace_back([&, r] {
        auto c = w.rank(r);
        auto const moved = std::move(c);  // the moved-from end says no farewell
        c = w.size() == 3 ? communicator_type(std::move(const_cast<communicator_type&>(moved))) : w.rank(r);
        std::vector<float> v(3000, 1.0f);
        c.all_reduce(std::span(v));
        expect(v[2999] == 3, "sum");
        if (round == 1) {
          if (r == 0) return;
          try {
            c.barrier();
          } catch (rank_lost const& e) {
            lost += e.rank == 0;
          }
        }
      });
    for (auto& t : threads) t.join();
    CHECK(lost == (round == 1 ? 2 : 0));
  }
}

namespace {

/// Runs f on 4 ranks, each of which must throw Error naming `rank`; returns the message of one of them.
template <class Error>
std::string all_blame(int rank, comm::threads_options options, std::function<void(communicator_type&)> f,
                      int throwing) {
  comm::threads const w{4, options};
  std::atomic<int> named{0};
  std::string what;
  std::mutex m;
  auto const start = std::chrono::steady_clock::now();
  w.run([&](communicator_type& c) {
    try {
      f(c);
    } catch (Error const& e) {
      named += e.rank == rank;
      {
        std::lock_guard const lock(m);
        what = e.what();
      }
      std::vector<float> v(10);
      CHECK_THROWS_AS(c.all_reduce(std::span(v)), Error);
      CHECK_THROWS_AS(c.barrier(), Error);
    }
  });
  CHECK(named == throwing);
  CHECK(std::chrono::steady_clock::now() - start < 20s);
  std::atomic<int> sum{0};
  w.run([&](communicator_type& c) {  // a new run is a new beginning
    std::vector<std::int32_t> v(2000, 1);
    c.all_reduce(std::span(v));
    sum += v[1999];
  });
  CHECK(sum == 16);
  return what;
}

}  // namespace

TEST_CASE("a rank that does not come within the deadline is named, with operation, size and time") {
  auto const late = [](communicator_type& c) {
    std::vector<float> v(5000);
    c.all_reduce(std::span(v));
    if (c.rank() == 2) std::this_thread::sleep_for(600ms);
    c.all_reduce(std::span(v));
  };
  auto const what = all_blame<rank_lost>(2, {.deadline = 100ms}, late, 4);
  CHECK(what ==
        "all_reduce(sum) of 5000 f32, operation 2 of 4 ranks: rank 2 did not come for 100 ms, the deadline: it is "
        "blocked or slow (threads_options::deadline can be raised)");
}

TEST_CASE("a rank that is away, in code of its own, is waited for beyond the deadline, but not when it is gone") {
  comm::threads const w{3, {.deadline = 100ms}};
  std::atomic<int> done{0};
  w.run([&](communicator_type& c) {
    std::vector<float> v(5000, 1.0f);
    std::byte b{};
    for (int i = 0; i < 2; ++i) {
      if (c.rank() == 0) {
        auto away = c.away();
        std::this_thread::sleep_for(250ms);
        {
          auto const nested = c.away();
          std::this_thread::sleep_for(20ms);
        }
        std::this_thread::sleep_for(130ms);
        away = {};                          // moved from, and so back
        std::this_thread::sleep_for(60ms);  // a deadline begins anew
        c.send(std::span(&b, 1), 2);
      } else if (c.rank() == 2) {
        c.recv(std::span(&b, 1), 0);
      }
      c.all_reduce(std::span(v));
      comm::async owner(c);
      {
        auto const away = c.rank() == 1 ? owner.away() : comm::away_guard{};
        std::this_thread::sleep_for(c.rank() == 1 ? 250ms : 0ms);
      }
      owner.barrier().wait();
    }
    done += v[7] == 9;
  });
  CHECK(done == 3);
  comm::self{}.run([](comm::self& c) { auto const away = c.away(); });

  auto const start = std::chrono::steady_clock::now();
  comm::threads const patient{2, {.deadline = 60s}};
  CHECK_THROWS_WITH_AS(patient.run([](communicator_type& c) {
    auto const away = c.away();
    if (c.rank() == 0) throw std::runtime_error("the disk is full");
    c.barrier();
  }),
                       "the disk is full", std::runtime_error);
  CHECK(std::chrono::steady_clock::now() - start < 20s);
  all_blame<rank_lost>(
      1, {.deadline = 60ms},
      [](communicator_type& c) {  // back, and blocked
        if (c.rank() == 1) {
          { auto const away = c.away(); }
          std::this_thread::sleep_for(400ms);
        }
        c.barrier();
      },
      4);
}

TEST_CASE("messages that nobody waits for neither extend the deadline of recv nor pile up without bound") {
  comm::threads const w{2, {.deadline = 200ms, .mailbox = {.messages = 1000}}};
  std::atomic<bool> over{false};
  std::string full;
  auto const start = std::chrono::steady_clock::now();
  double received_for = 0;
  w.run([&](communicator_type& c) {
    std::byte b{};
    if (c.rank() == 0) {
      CHECK_THROWS_AS(c.recv(std::span(&b, 1), 1, 7), rank_lost);
      received_for = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      over = true;
    } else {
      while (!over) try {
          c.send(std::span(&b, 1), 0, 3);
          std::this_thread::sleep_for(10ms);
        } catch (rank_lost const&) {
          break;
        }
    }
  });
  CHECK(received_for >= 0.2);
  CHECK(received_for < 1.5);
  auto const what = all_blame<rank_lost>(
      1, {.deadline = 100ms, .mailbox = {.messages = 10}},
      [](communicator_type& c) {
        std::byte b{};
        if (c.rank() == 0)
          for (int i = 0; i < 11; ++i) c.send(std::span(&b, 1), 1);
        if (c.rank() == 1) std::this_thread::sleep_for(500ms);
        c.barrier();
      },
      4);
  CHECK(what.find("rank 1") != std::string::npos);
  comm::threads const waits{2, {.deadline = 30s, .mailbox = {.messages = 10}}};
  waits.run([](communicator_type& c) {  // a full mailbox is waited for
    for (int i = 0; i < 200; ++i) {
      int n = i;
      if (c.rank() == 0) c.send(std::as_bytes(std::span(&n, 1)), 1);
      if (c.rank() == 1) {
        c.recv(std::as_writable_bytes(std::span(&n, 1)), 0);
        expect(n == i, "order");
      }
    }
  });
  CHECK_THROWS_AS(waits.run([](communicator_type& c) {
    std::byte b{};
    for (int i = 0; i < 11; ++i) c.send(std::span(&b, 1), c.rank());
  }),
                  comm_error);
  comm::self alone;
  std::byte b{};
  for (int i = 0; i < 65536; ++i) alone.send(std::span(&b, 1), 0);
  CHECK_THROWS_AS(alone.send(std::span(&b, 1), 0), comm_error);
}

TEST_CASE("who gives up blames the rank that all wait for, not the one in between") {
  all_blame<rank_lost>(
      0, {.deadline = 200ms},
      [](communicator_type& c) {  // 3 waits for 2 for 1 for 0
        std::byte b{};
        std::this_thread::sleep_for(c.rank() == 0 ? 900ms : c.rank() == 3 ? 0ms : 100ms);
        if (c.rank() > 0)
          c.recv(std::span(&b, 1), c.rank() - 1);
        else
          c.barrier();
      },
      4);
}

TEST_CASE("a process that is forked after ranks were started gets one clear error") {
  comm::threads{2}.run([](communicator_type& c) {
    comm::async owner(c, comm::progress::thread);
    owner.barrier().wait();
    if (c.rank() == 0) {
      auto const before = owner.barrier();
      pid_t const child = fork();
      if (child == 0) {
        int errors = 0;
        auto const fails = [&](auto f) {
          try {
            f();
          } catch (comm_error const& e) {
            errors += std::string(e.what()).find("is a fork of the one") != std::string::npos;
          }
        };
        std::vector<float> v(10000);
        fails([&] { owner.barrier(); });
        fails([&] { before.wait(); });
        fails([&] { c.all_reduce(std::span(v)); });
        fails([&] { c.recv(std::as_writable_bytes(std::span(v)), 1); });
#if !defined(__SANITIZE_THREAD__)  // which starts no threads in the child of a process that had some
        auto* const another =
            new comm::async<comm::self>{comm::self{}, comm::progress::thread};  // ranks may be started after the fork
        another->barrier().wait();
        delete another;
#endif
        _exit(errors == 4 ? 0 : 1);
      }
      int status = 1;
      for (int i = 0; i < 2000 && waitpid(child, &status, WNOHANG) == 0; ++i) std::this_thread::sleep_for(10ms);
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 0);
      before.wait();
    } else {
      owner.barrier().wait();
    }
  });
}

TEST_CASE("cores are counted as this process may use them") {
  int const all = usable_cores();
  CHECK(all >= 1);
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(usable_cores() == 1);
  sched_setaffinity(0, sizeof before, &before);
  CHECK(detail::quota_of("50000 100000") == 0.5);
  CHECK(detail::quota_of("300000\n 100000") == 3);
  CHECK(detail::quota_of("max 100000") == 0);
  CHECK(detail::quota_of("-1 100000") == 0);
  CHECK(detail::quota_of("") == 0);
}

TEST_CASE("a rank that returns while others wait is named at once") {
  for (auto const spin : {0us, 50us, 100000us})
    all_blame<rank_lost>(
        1, {.deadline = 60s, .spin = spin},
        [](communicator_type& c) {
          if (c.rank() == 1) return;
          c.barrier();
        },
        3);
  all_blame<rank_lost>(
      3, {.deadline = 60s},
      [](communicator_type& c) {
        std::vector<float> v(10);
        if (c.rank() == 3) return;
        if (c.rank() == 0)
          c.recv(std::as_writable_bytes(std::span(v)), 3, 0);
        else
          c.barrier();
      },
      3);
}

TEST_CASE("run rethrows what the rank threw that failed first, not that others missed it") {
  comm::threads const w{4, {.deadline = 60s}};
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> lost{0};
    auto const f = [&](communicator_type& c) {
      std::vector<float> v(100000);
      c.all_reduce(std::span(v));
      auto part = c.split(c.rank() / 2, 0);
      if (c.rank() == 3) throw std::runtime_error("the disk is full");
      try {
        if (c.rank() == 2)
          part.barrier();  // sees the farewell of rank 3 in the part
        else
          c.all_reduce(std::span(v));
      } catch (rank_lost const& e) {
        lost += e.rank == (c.rank() == 2 ? 1 : 3);  // rank 3 is rank 1 of the part
        throw;
      }
    };
    CHECK_THROWS_WITH_AS(w.run(f), "the disk is full", std::runtime_error);
    CHECK(lost == 3);
  }
  CHECK_THROWS_AS(w.run([](communicator_type& c) {
    if (c.rank() == 1) throw 7;
    c.barrier();
  }),
                  int);
}

TEST_CASE("ranks that call something else are named: operation, size, type, reduction, root") {
  auto const but = [](auto usual, auto other) {
    return [=](communicator_type& c) {
      std::vector<float> v(2000);
      c.all_reduce(std::span(v));
      if (c.rank() == 2)
        other(c);
      else
        usual(c);
    };
  };
  auto const sum = [](communicator_type& c) {
    std::vector<float> v(2000);
    c.all_reduce(std::span(v));
  };
  auto const what = all_blame<rank_diverged>(2, {},
                                             but(sum,
                                                 [](communicator_type& c) {
                                                   std::vector<float> v(7);
                                                   c.broadcast(std::span(v), 1);
                                                 }),
                                             4);
  CHECK(
      what.ends_with(" of 4 ranks: rank 2 called broadcast of 7 f32 from rank 1: every rank must call the same "
                     "operations with the same sizes, in the same order"));
  all_blame<rank_diverged>(2, {},
                           but(sum,
                               [](communicator_type& c) {
                                 std::vector<float> v(1999);
                                 c.all_reduce(std::span(v));
                               }),
                           4);
  all_blame<rank_diverged>(2, {},
                           but(sum,
                               [](communicator_type& c) {
                                 std::vector<float> v(20);
                                 c.all_reduce(std::span(v));
                               }),
                           4);
  all_blame<rank_diverged>(2, {},
                           but(sum,
                               [](communicator_type& c) {
                                 std::vector<std::int32_t> v(2000);
                                 c.all_reduce(std::span(v));
                               }),
                           4);
  all_blame<rank_diverged>(2, {},
                           but(sum,
                               [](communicator_type& c) {
                                 std::vector<float> v(2000);
                                 c.all_reduce(std::span(v), comm::reduction::max);
                               }),
                           4);
  all_blame<rank_diverged>(2, {}, but(sum, [](communicator_type& c) { c.barrier(); }), 4);
  all_blame<rank_diverged>(2, {},
                           but(
                               [](communicator_type& c) {
                                 std::vector<float> v(9);
                                 c.broadcast(std::span(v), 0);
                               },
                               [](communicator_type& c) {
                                 std::vector<float> v(9);
                                 c.broadcast(std::span(v), 2);
                               }),
                           4);
  all_blame<rank_diverged>(
      0, {.deadline = 60s},
      [](communicator_type& c) {
        std::vector<float> v(9);
        if (c.rank() == 0) {
          c.send(std::as_bytes(std::span(v)), 1);
          c.barrier();
        } else if (c.rank() == 1) {
          c.recv(std::as_writable_bytes(std::span(v).first(8)), 0);
        } else {
          c.barrier();
        }
      },
      4);
}

TEST_CASE("a rank that fails leaves no peer at work on an array that is gone") {
  comm::threads const w{4, {.deadline = 20ms}};
  for (int i = 0; i < 30; ++i) try {
      w.run([&](communicator_type& c) {
        for (int k = 0; k < 50; ++k) {
          auto const v = std::make_unique<std::vector<float>>(100000, 1.0f);  // freed, and reused, at once
          if (c.rank() == i % 4 && k == 5 + i % 7) throw std::runtime_error("gone");
          if (c.rank() == (i + 1) % 4 && k == 3 && i % 3 == 0) std::this_thread::sleep_for(21ms);
          c.all_reduce(std::span(*v));
          expect((*v)[77] == 4, "sum");
        }
      });
      CHECK(false);
    } catch (comm_error const&) {
    } catch (std::runtime_error const& e) {
      CHECK(std::string(e.what()) == "gone");
    }
}

TEST_CASE("more ranks than cores wait asleep") {
  comm::threads const w{16};
  w.run([](communicator_type& c) {
    std::vector<float> v(3000);
    for (int k = 0; k < 50; ++k) {
      std::fill(v.begin(), v.end(), static_cast<float>(c.rank()));
      c.all_reduce(std::span(v).first(k % 2 ? 10 : 3000));
      expect(v[3] == 120, "sum");
    }
  });
}

TEST_CASE("half types are converted in vectors to the bits of their scalar conversions") {
  std::vector<fp16> halves(65536), h1(65536);
  std::vector<bf16> brains(65536), b1(65536);
  for (std::uint32_t u = 0; u < 65536; ++u) {
    halves[u].bits = static_cast<std::uint16_t>(u);
    brains[u].bits = static_cast<std::uint16_t>(u);
    h1[u] = fp16(conformance::value<float>(0, u, 5) * (u % 3 ? 1.0f : 1e-6f));
    b1[u] = bf16(conformance::value<float>(0, u, 6));
  }
  auto const check = [](auto a, auto const& b) {
    using T = typename decltype(a)::value_type;
    auto const expected = [&](std::size_t i) { return T(static_cast<float>(a[i]) + static_cast<float>(b[i])); };
    std::vector<T> sums(a.size());
    std::byte const* const sources[] = {reinterpret_cast<std::byte const*>(a.data()),
                                        reinterpret_cast<std::byte const*>(b.data())};
    std::byte* const out = reinterpret_cast<std::byte*>(sums.data());
    comm::reducer<T>(comm::reduction::sum)(&out, 1, sources, 2, a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      auto const e = static_cast<float>(expected(i));
      if (e == e)
        REQUIRE(sums[i].bits == expected(i).bits);
      else
        REQUIRE(static_cast<float>(sums[i]) != static_cast<float>(sums[i]));
    }
  };
  check(halves, h1);
  check(brains, b1);
  check(halves, halves);
  std::vector<fp16> const zeros(65536, fp16(0.0f));
  check(halves, zeros);
}

}  // namespace comm_threads
