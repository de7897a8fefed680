// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_lost_rank WAY shared|staged|messages|checked [OPERATION]: the last rank goes missing in some WAY, before or in
// the midst of the operation, which is all_reduce if none is said; every other rank must throw within the deadline, say
// which rank it was, and end: it prints "rank R ok: ..." and exits with 0. `staged`: without single copies.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/core/config.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hosts.hpp"

using namespace dovetail;
using clock_type = std::chrono::steady_clock;

namespace {
/// Where in the making of a part this process ends: before the second communicator of it is made, or behind.
enum class ends { nowhere, in_duplicate, behind_duplicate, now } end_here = ends::nowhere;
bool staged = false, no_memory = false;

/// Floats whose second half this process can be forbidden to touch: what touches it is killed there.
struct array {
  static constexpr std::size_t n = std::size_t{1} << 19;
  explicit array(float x)
      : at(static_cast<float*>(mmap(nullptr, 4 * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    std::fill(all().begin(), all().end(), x);
  }
  std::span<float> all() const { return {at, n}; }
  void forbid_half() const {
    if (mprotect(at + n / 2, 2 * n, PROT_NONE) != 0) std::abort();
  }
  float* at;
};

template <class C>
void operate(C& c, std::string const& operation, array const& data, array const& other,
             std::size_t n = array::n / 3 * 3) {
  auto const v = data.all().first(n), w = other.all().first(v.size());  // of three ranks
  std::vector<std::byte> all;
  if (operation == "all_reduce") c.all_reduce(v);
  if (operation == "reduce_scatter") c.reduce_scatter(v);
  if (operation == "all_gather") c.all_gather(v);
  if (operation == "all_gather_v") c.all_gather_v(std::as_bytes(v), all);
  if (operation == "all_to_all") c.all_to_all(std::span<float const>(v), w);
  if (operation == "broadcast") c.broadcast(v, 0);
  if (operation == "broadcast_from_last") c.broadcast(v, c.size() - 1);
}
}  // namespace

extern "C" ssize_t process_vm_readv(pid_t pid, iovec const* here, unsigned long m, iovec const* there, unsigned long n,
                                    unsigned long flags) {
  if (!staged) return syscall(SYS_process_vm_readv, pid, here, m, there, n, flags);
  errno = EPERM;
  return -1;
}
void* operator new(std::size_t n) {
  void* const p = no_memory && n > 1'000'000 ? nullptr : std::malloc(n);
  if (!p) throw std::bad_alloc();
  return p;
}
// Not inline: GCC would warn of free() where it has not seen that `new` is malloc().
DOVETAIL_NOINLINE void give_back(void* p) { std::free(p); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }

// MPI's own way to come between a program and MPI.
extern "C" int MPI_Comm_idup(MPI_Comm c, MPI_Comm* made, MPI_Request* request) {
  if (end_here == ends::in_duplicate) std::raise(SIGKILL);
  if (end_here == ends::behind_duplicate) end_here = ends::now;
  return PMPI_Comm_idup(c, made, request);
}
extern "C" int MPI_Comm_set_errhandler(MPI_Comm c, MPI_Errhandler how) {
  if (end_here == ends::now) std::raise(SIGKILL);
  return PMPI_Comm_set_errhandler(c, how);
}

int main(int argc, char** argv) {
  std::string const way = argc > 1 ? argv[1] : "";
  std::string const transport = argc > 2 ? argv[2] : "shared";
  std::string const operation = argc > 3 ? argv[3] : "all_reduce";
  staged = transport == "staged";
  bool const prompt = way == "killed" || way == "killed_midway" || way == "no_memory" || way == "shorter" ||
                      way == "other" || way == "exits" || way == "throws" || way == "returns" || way == "diverges" ||
                      way.ends_with("_split");
  // "hosts=1,2": ranks on several, of which the last rank is alone on one whose death nobody there can see.
  bool const on_hosts = transport.starts_with("hosts="), unseen = transport.ends_with(",1");
  std::chrono::milliseconds const deadline{prompt && !unseen ? 30000 : 1000};
  int status = 1, rank = 0;
  std::vector<float> v(50000, 1.0f);
  array const data(1), other(2);
  clock_type::time_point start;
  try {
    comm::mpi world{
        comm::mpi_options{.deadline = deadline,
                          .check = transport == "checked",
                          .shared_memory = transport == "shared" || staged || on_hosts,
                          .host = on_hosts ? hosts::of(hosts::launched_rank(), transport.substr(6)) : std::string()}};
    rank = world.rank();
    int const last = world.size() - 1;
    try {
      world.run([&](auto& c) {
        c.all_reduce(std::span(v));
        if (v[49999] != static_cast<float>(c.size())) throw error("wrong sum");
        c.barrier();
        start = clock_type::now();
        if (rank == last) {
          if (way == "killed") std::raise(SIGKILL);
          if (way == "exits") _exit(0);
          if (way == "throws") throw std::runtime_error("the disk is full");
          if (way == "sleeps") std::this_thread::sleep_for(std::chrono::seconds(4));
          if (way.starts_with("away")) {
            auto const away = c.away();
            std::this_thread::sleep_for(std::chrono::milliseconds(2500));
            if (way == "away_killed") std::raise(SIGKILL);
          }
          if (way == "stops") {
            if (fork() == 0) {  // who lets it go on
              std::this_thread::sleep_for(std::chrono::seconds(4));
              kill(getppid(), SIGCONT);
              _exit(0);
            }
            std::raise(SIGSTOP);
          }
          if (way == "killed_midway") (operation == "all_to_all" ? other : data).forbid_half();
          no_memory = way == "no_memory";
          if (way == "shorter") operate(c, operation, data, other, 30000);
          if (way == "other") operate(c, operation == "all_gather" ? "broadcast" : "all_gather", data, other);
          if (way == "diverges") c.all_reduce(std::span(v).first(40000));
          if (way == "returns") return;
          if (way == "killed_in_split") end_here = ends::in_duplicate;
          if (way == "killed_behind_split") end_here = ends::behind_duplicate;
        }
        // Of this part the last rank is the first: it must be named by its number in the whole.
        if (way.ends_with("_split")) static_cast<void>(c.split(0, -c.rank()));
        operate(c, operation, data, other);
        c.barrier();  // a root may be done, and hear of it in the next operation
      });
      if (way == "returns" && rank == last) status = 0;
      if (way == "away" && data.at[array::n / 2] == static_cast<float>(world.size())) {
        status = 0;
        std::printf("rank %d ok: nobody was missed\n", rank);
      }
    } catch (comm_error const& e) {
      auto const took = std::chrono::duration_cast<std::chrono::milliseconds>(clock_type::now() - start);
      bool const kind = way == "diverges" || way == "shorter" || way == "other"
                            ? dynamic_cast<rank_diverged const*>(&e) != nullptr
                            : dynamic_cast<rank_lost const*>(&e) != nullptr;
      bool const in_time = took < (prompt ? std::chrono::milliseconds(10000) : std::chrono::milliseconds(6000));
      bool again = false;
      try {
        world.barrier();
      } catch (comm_error const&) {
        again = true;  // broken is broken
      }
      if (kind && again && in_time && e.rank == last) status = 0;
      std::printf("rank %d %s: after %lld ms: %s\n", rank, status ? "FAILED" : "ok",
                  static_cast<long long>(took.count()), e.what());
    } catch (std::exception const&) {
      if (rank == last && (way == "throws" || way == "no_memory")) status = 0;
    }
    std::fflush(stdout);
  } catch (std::exception const& e) {
    std::printf("rank %d: %s\n", rank, e.what());
    std::fflush(stdout);
  }
  _exit(status);  // MPI is not finalized after a failure; nor may a static destructor try
}
