// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_messages WAY TRANSPORT: messages between ranks, and what goes on when rank 2 is lost. Each rank prints a line.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/concepts.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "messages.hpp"

using namespace dovetail;
using namespace std::chrono_literals;
using messages::expect;

static_assert(elastic_communicator<comm::mpi>);

namespace {

constexpr int victim = 2;

/// Rank 2 does not come, and finds itself left behind.
void late(comm::mpi& c) {
  if (c.rank() == victim) {
    std::this_thread::sleep_for(3s);
    try {
      c.shrink();
      expect(false, "the others have waited");
    } catch (rank_lost const& e) {
      expect(e.rank == victim, "it is this rank that is lost: ", e.what());
    }
    return;
  }
  auto rest = c.shrink();
  expect(rest.size() == c.size() - 1, "there are ", rest.size(), " left");
  std::vector<double> v(1000, 1.0);
  rest.all_reduce(std::span(v));
  expect(v[999] == rest.size(), "the sum of those who are left");
}

/// Rank 1 ends it; rank 0 is in a collective, the others wait for a message.
void aborted(comm::mpi& c) {
  std::vector<std::byte> data;
  auto const ended = [&](auto const& f) {
    try {
      f();
      expect(false, "it goes on");
    } catch (rank_lost const& e) {
      expect(e.rank == 1 && std::string(e.what()).find("rank 1 has ended it: no licence") != std::string::npos,
             "another reason: ", e.what());
    }
  };
  if (c.rank() == 1) {
    std::this_thread::sleep_for(100ms);
    c.abort("no licence");
  }
  if (c.rank() == 0) ended([&] { c.barrier(); });
  if (c.rank() > 1) ended([&] { c.wait_message(); });
  ended([&] { c.send(data, 0); });
  ended([&] { c.shrink(); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGUSR1, SIG_IGN);  // MPICH's mpirun sends it to the others of a process that is killed
  std::string const way = argv[1], transport = argv[2];
  int rank = -1;
  try {
    comm::mpi c({.deadline = way == "late" ? 1s : 5s, .shared_memory = transport == "shared"});
    rank = c.rank();
    if (way == "all") {
      messages::all(c);
      messages::all(c);
    } else if (way == "late") {
      late(c);
    } else if (way == "aborted") {
      aborted(c);
    } else {
      messages::survive(c, victim, [&]() {
        if (way == "killed") std::raise(SIGKILL);
        if (way == "exits") _exit(3);
        throw std::runtime_error("killed");
      });
    }
    std::printf("rank %d ok\n", rank);
    std::fflush(stdout);
    if (way != "all") _exit(0);  // MPI cannot be finalized without the lost rank
  } catch (std::exception const& e) {
    std::printf("rank %d: %s\n", rank, e.what());
    std::fflush(stdout);
    _exit(1);
  }
}
