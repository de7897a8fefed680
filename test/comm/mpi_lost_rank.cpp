// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_lost_rank WAY shared|messages|checked: the last rank goes missing in some WAY; every other rank must throw within
// the deadline, say which rank it was, and end: it prints "rank R ok: ..." and exits with 0.
#include <dovetail/comm/mpi.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

using namespace dovetail;
using clock_type = std::chrono::steady_clock;

namespace {
/// Where in the making of a part this process ends: before the second communicator of it is made, or behind.
enum class ends { nowhere, in_duplicate, behind_duplicate, now } end_here = ends::nowhere;
}  // namespace

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
  bool const prompt = way == "killed" || way == "exits" || way == "throws" || way == "returns" || way == "diverges" ||
                      way.ends_with("_split");
  std::chrono::milliseconds const deadline{prompt ? 30000 : 1000};
  int status = 1, rank = 0;
  std::vector<float> v(50000, 1.0f);
  clock_type::time_point start;
  try {
    comm::mpi world{comm::mpi_options{
        .deadline = deadline, .check = transport == "checked", .shared_memory = transport == "shared"}};
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
          if (way == "diverges") c.all_reduce(std::span(v).first(40000));
          if (way == "returns") return;
          if (way == "killed_in_split") end_here = ends::in_duplicate;
          if (way == "killed_behind_split") end_here = ends::behind_duplicate;
        }
        // Of this part the last rank is the first: it must be named by its number in the whole.
        if (way.ends_with("_split")) static_cast<void>(c.split(0, -c.rank()));
        c.all_reduce(std::span(v));
      });
      if (way == "returns" && rank == last) status = 0;
      if (way == "away" && v[49999] == 9) {
        status = 0;
        std::printf("rank %d ok: nobody was missed\n", rank);
      }
    } catch (comm_error const& e) {
      auto const took = std::chrono::duration_cast<std::chrono::milliseconds>(clock_type::now() - start);
      bool const kind = way == "diverges" ? dynamic_cast<rank_diverged const*>(&e) != nullptr
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
    } catch (std::runtime_error const& e) {
      if (rank == last && way == "throws") status = 0;
    }
    std::fflush(stdout);
  } catch (std::exception const& e) {
    std::printf("rank %d: %s\n", rank, e.what());
    std::fflush(stdout);
  }
  _exit(status);  // MPI is not finalized after a failure; nor may a static destructor try
}
