// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_server WAY TRANSPORT: a server and workers of unequal speed, of which rank 2 is lost (or none: "all"). Each rank
// that is left prints a line.
#include <dovetail/comm/mpi.hpp>

#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include <unistd.h>

#include "server.hpp"

using namespace dovetail;

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGUSR1, SIG_IGN);  // MPICH's mpirun sends it to the others of a process that is killed
  std::string const way = argv[1];
  int rank = -1;
  try {
    comm::mpi c({.deadline = std::chrono::seconds(20), .shared_memory = argv[2] == std::string("shared")});
    rank = c.rank();
    int const victim = way == "all" ? -1 : 2;
    auto const o = test::train_logistic(sync::parameter_server{}, c, victim, [&] {
      if (way == "killed") std::raise(SIGKILL);
      throw std::runtime_error("killed");
    });
    test::check_outcome(o, rank == 0, victim, c.size() - 1, 150, 0.2);
    std::printf("rank %d ok\n", rank);
    std::fflush(stdout);
    if (way != "all") _exit(0);  // MPI cannot be finalized without the lost rank
  } catch (std::exception const& e) {
    std::printf("rank %d: %s\n", rank, e.what());
    std::fflush(stdout);
    _exit(1);
  }
}
