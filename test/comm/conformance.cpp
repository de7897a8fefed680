// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The conformance suite as a program: `threads RANKS` in this process, or, under mpirun, `mpi [HOW]`: through shared
// memory, with single copies if the system allows them, which it does for some bytes at a time (crumbs), not (staged),
// or not any more after a while (refused); or by messages (plain), comparing calls first (checked), or in many small
// ones (pieces). `mpi stalled`: a rank reads so late that the others have given it up, and their arrays are others'.
// `threads RANKS algorithms`, `mpi algorithms`: the suite of algorithms, with each of them. Rank 0 prints a digest of
// all results, which must not depend on the backend.
#include <dovetail/comm/decorators.hpp>
#include <dovetail/comm/mpi.hpp>
#include <dovetail/comm/threads.hpp>
#include <dovetail/concepts.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "algorithms.hpp"
#include "conformance.hpp"
#include "hosts.hpp"

using namespace dovetail;

namespace {
long reads_left = 1L << 60;                                  // that the system allows
std::size_t read_at_most = std::size_t(1) << 40, reads = 0;  // bytes at once; so far
bool stalls = false;                                         // in the next one
}  // namespace
extern "C" ssize_t process_vm_readv(pid_t pid, iovec const* here, unsigned long, iovec const* there, unsigned long,
                                    unsigned long) {
  if (--reads_left < 0) {
    errno = EPERM;
    return -1;
  }
  if (std::exchange(stalls, false)) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  iovec const to{here->iov_base, std::min(here->iov_len, read_at_most)};
  auto const n = syscall(SYS_process_vm_readv, pid, &to, 1UL, there, 1UL, 0UL);
  if (n > 0) reads += static_cast<std::size_t>(n);
  return n;
}

static_assert(communicator<comm::mpi> && world<comm::mpi>);

namespace {
template <class C>
void all_algorithms(C& c) {
  for (auto const k : comm::algorithm::kinds) {
    auto with = comm::with_algorithm(c, comm::algorithm::chosen{k});
    auto const digest = conformance::algorithm(with);
    if (c.rank() == 0) std::printf("%s %016llx ", name_of(k), static_cast<unsigned long long>(digest));
  }
  if (c.rank() == 0) std::printf("\n");
}
}  // namespace

int main(int argc, char** argv) try {
  std::string const backend = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  auto const print = [](auto& c) {
    auto const digest = conformance::all(c);
    if (c.rank() == 0) std::printf("%d ranks: digest %016llx\n", c.size(), static_cast<unsigned long long>(digest));
  };
  bool const algorithms = how == "algorithms" || (argc > 3 && std::string(argv[3]) == "algorithms");
  if (backend == "threads" && algorithms) {
    comm::threads{std::atoi(how.c_str())}.run([](auto& c) { all_algorithms(c); });
  } else if (algorithms) {
    comm::mpi{{.deadline = std::chrono::seconds(60)}}.run([](auto& c) {
      all_algorithms(c);
      // By messages, as around any communicator, in place of its own steps.
      auto steps = comm::with_algorithm(c, comm::algorithm::chosen{comm::algorithm::kind::ring});
      auto around = comm::decorate(c, [](auto&, comm::call const&, auto const& operation) { operation(); });
      auto messages = comm::with_algorithm(around, comm::algorithm::chosen{comm::algorithm::kind::ring});
      conformance::expect(conformance::algorithm(steps) == conformance::algorithm(messages), "a ring of messages");
    });
  } else if (how == "stalled") {
    comm::mpi c{{.deadline = std::chrono::milliseconds(300)}};
    std::string const way = c.transport();
    std::vector<float> v(1 << 20, static_cast<float>(c.rank())), all(v.size() * static_cast<std::size_t>(c.size()));
    c.barrier();
    stalls = c.rank() == c.size() - 1;
    bool right = way == "shared memory";  // nobody reads anything late
    if (!right) try {
        c.all_gather(std::span<float const>(v), std::span(all));
      } catch (rank_lost const& e) {
        right = e.rank == c.size() - 1;
        std::fill(v.begin(), v.end(), 777.f);
        std::this_thread::sleep_for(std::chrono::seconds(2));
      }
    std::printf("rank %d %s: %s\n", c.rank(), right ? "ok" : "wrong", way.c_str());
    std::fflush(stdout);
    _exit(0);
  } else if (backend == "threads") {
    comm::threads{std::atoi(how.c_str())}.run(print);
  } else {
    bool const crumbs = how == "crumbs", staged = how == "staged", refused = how == "refused";
    comm::mpi_options options{.deadline = std::chrono::seconds(60),
                              .shared_memory = how.empty() || crumbs || staged || refused};
    if (crumbs) read_at_most = 5000;
    if (staged) reads_left = 0;
    if (how == "checked") options.check = true;
    if (how == "pieces" || how.ends_with(" pieces")) options.largest_message = 1000;
    bool const on_hosts = how.starts_with("hosts");
    if (on_hosts) options.shared_memory = true;
    if (how.starts_with("hosts=")) options.host = hosts::of(hosts::launched_rank(), how.substr(6));
    if (how.ends_with(" lanes")) options.lanes = 2;
    comm::mpi world{options};
    auto copy = world;
    std::string const before = world.transport();
    if (refused && world.rank() == world.size() - 1) reads_left = 50;
    copy.run(print);
    std::string const after = world.transport();
    if (on_hosts) {
      conformance::expect(before == (how.starts_with("hosts=1,1,1") ? "messages" : "messages from host to host"),
                          "on several hosts data are moved by ", before);
    } else if (world.size() > 1 && options.shared_memory) {
      conformance::expect(before.starts_with("shared memory"), "data are moved by ", before);
      bool const single = before != "shared memory";
      conformance::expect(!(single && staged), "not allowed, but ", before);
      conformance::expect(single == (reads > 100'000), before, ", and ", reads, " bytes were read so");
      conformance::expect((after != before) == (refused && single), before, " became ", after);
      if (world.rank() == 0) std::fprintf(stderr, "%s\n", before.c_str());
    }
    conformance::expect(world.traffic() == copy.traffic(), "copies count together");
    comm::mpi joined{MPI_COMM_WORLD, {.order = comm::mpi_order::native}};  // beside the first: messages do not mix
    std::vector<std::int64_t> v(5000, joined.rank());
    joined.all_reduce(std::span(v), comm::reduction::max);
    conformance::expect(v[4999] == joined.size() - 1, "native all_reduce");
#if defined(DOVETAIL_BOOST_MPI)
    comm::mpi boosted{boost::mpi::communicator{}};
    boosted.barrier();
#endif
  }
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
