// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// random_faults COUNT SEED: so many faults at random, of ranks that are threads.
// random_faults SEED shared|messages under mpirun, where built with MPI: ranks are lost one after another until two are
// left.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <unistd.h>

#include "random_faults.hpp"
#ifdef RANDOM_FAULTS_MPI
#include <dovetail/comm/mpi.hpp>
#endif

using namespace dovetail;
using namespace std::chrono_literals;
using test::fault;

namespace {

struct left_early {};  // returns without a word

#ifdef RANDOM_FAULTS_MPI
/// Stops this process; another one ends it when nobody waits for it any more.
void stop_for_good() {
  pid_t const me = getpid();
  if (fork() == 0) {
    for (int fd = 0; fd < 3; ++fd) close(fd);
    std::this_thread::sleep_for(8s);
    kill(me, SIGKILL);
    _exit(0);
  }
  std::raise(SIGSTOP);
}
#endif

bool one(std::uint64_t seed) {
  int const ranks = 2 + static_cast<int>(random_stream{seed, 9}.word(0) % 4);
  std::array constexpr usual{fault::throws, fault::returns, fault::throws, fault::returns, fault::diverges};
  std::array constexpr slow{fault::stalls};
  bool const stalls = seed % 50 == 7;  // costs seconds
  fault const f = fault::drawn(seed, ranks, stalls ? std::span<fault::kind const>(slow) : usual);
  std::atomic<int> fine{0};
  std::string wrong;
  std::mutex mutex;
  try {
    comm::threads(ranks, {.deadline = stalls ? 1500ms : 20000ms}).run([&](auto& c) {
      try {
        bool const goes_on = test::outlive(f, c, [&](auto& comm) {
          if (f.what == fault::throws) throw std::runtime_error("victim");
          if (f.what == fault::returns) throw left_early{};
          if (f.what == fault::stalls) std::this_thread::sleep_for(3s);
          if (f.what == fault::diverges) test::ask_for_something_else(comm);
        });
        if (goes_on) {
          auto rest = c.shrink();
          test::check_survivors(rest, ranks - 1);
        }
        ++fine;
      } catch (left_early const&) {
        ++fine;
      } catch (std::runtime_error const& e) {
        if (std::string(e.what()) == "victim") {
          ++fine;
          throw;
        }
        std::lock_guard const lock(mutex);
        wrong += message("  rank ", c.rank(), ": ", e.what(), '\n');
      }
    });
  } catch (std::exception const& e) {
    if (std::string(e.what()) != "victim") wrong += message("  run: ", e.what(), '\n');
  }
  if (fine == ranks && wrong.empty()) return true;
  std::printf("seed %llu, %d ranks, %s:\n%s", static_cast<unsigned long long>(seed), ranks, f.name().c_str(),
              wrong.c_str());
  return false;
}

int of_threads(int count, std::uint64_t from) {
  int failed = 0;
  for (int i = 0; i < count; ++i) failed += !one(from + static_cast<std::uint64_t>(i));
  std::printf("%d faults of threads, %d not as they should be\n", count, failed);
  return failed != 0;
}

#ifdef RANDOM_FAULTS_MPI
int of_processes(std::uint64_t seed, bool shared_memory) {
  std::signal(SIGUSR1, SIG_IGN);  // MPICH's mpirun sends it to the others of a process that is killed
  int me = -1, survived = 0;
  try {
    comm::mpi whole({.deadline = 3s, .shared_memory = shared_memory});
    me = whole.rank();
    using rest = decltype(whole.shrink());
    std::vector<std::unique_ptr<rest> > groups;
    // What ends a process, or stops it: the last fault may be any.
    std::array constexpr ends{fault::dies, fault::throws, fault::returns, fault::dies};
    std::array constexpr last{fault::stalls, fault::diverges, fault::dies};
    auto const lose_one = [&](auto& c, std::uint64_t n) {
      auto const f = fault::drawn(seed * 100 + n, c.size(), c.size() > 3 ? std::span<fault::kind const>(ends) : last);
      if (c.rank() == 0) std::printf("%s\n", f.name().c_str()), std::fflush(stdout);
      bool const goes_on = test::outlive(f, c, [&](auto& comm) {
        if (f.what == fault::dies) std::raise(SIGKILL);
        if (f.what == fault::throws) throw std::runtime_error("victim");
        if (f.what == fault::returns) throw left_early{};
        if (f.what == fault::stalls) stop_for_good();
        if (f.what == fault::diverges) test::ask_for_something_else(comm);
      });
      if (goes_on) {
        groups.push_back(std::make_unique<rest>(c.shrink()));
        test::check_survivors(*groups.back(), c.size() - 1);
      }
      ++survived;
      return goes_on;
    };
    bool more = lose_one(whole, 0);
    for (std::uint64_t n = 1; more && groups.back()->size() > 2; ++n) more = lose_one(*groups.back(), n);
    std::printf("rank %d ok, %d\n", me, survived);
    std::fflush(stdout);
    _exit(0);  // MPI cannot be finalized without the lost ranks
  } catch (left_early const&) {
    _exit(0);
  } catch (std::exception const& e) {
    if (std::string(e.what()) != "victim") std::printf("rank %d wrong: %s\n", me, e.what());
    std::fflush(stdout);
    _exit(3);
  }
}
#endif

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
#ifdef RANDOM_FAULTS_MPI
  std::string const transport = argv[2];
  if (transport == "shared" || transport == "messages")
    return of_processes(static_cast<std::uint64_t>(std::atoll(argv[1])), transport == "shared");
#endif
  return of_threads(std::atoi(argv[1]), static_cast<std::uint64_t>(std::atoll(argv[2])));
}
