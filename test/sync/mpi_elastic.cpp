// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_elastic WAY TRANSPORT: a training of processes of which rank 2 and then rank 0 are lost, in the way WAY. Each
// rank that is left checks its weights and prints a line.
#include <dovetail/comm/mpi.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include "elastic.hpp"

using namespace dovetail;
using test::loss_of_rank;

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGUSR1, SIG_IGN);  // MPICH's mpirun sends it to the others of a process that is killed
  std::string const way = argv[1];
  int rank = -1;
  try {
    comm::mpi c({.deadline = std::chrono::seconds(20), .shared_memory = argv[2] == std::string("shared")});
    rank = c.rank();
    std::vector<loss_of_rank> const losses{{2, 4, loss_of_rank::between}, {0, 8, loss_of_rank::before}};
    auto const o = test::train_elastic(sync::all_reduce{.bucket_bytes = 500}, c, 12, losses, [&] {
      if (way == "killed") std::raise(SIGKILL);
      throw std::runtime_error("out of memory");
    });
    auto const expected = test::expected_weights(12, [&](std::int64_t s) {
      std::vector<int> alive;
      auto const n = o.ranks_of[static_cast<std::size_t>(s)];
      for (int r = 0; r < c.size(); ++r)
        if ((r != 2 || n == c.size()) && (r != 0 || n > c.size() - 2)) alive.push_back(r);
      return alive;
    });
    test::expect(o.weights == expected, "the weights of such a training");
    std::printf("rank %d ok, steps of", rank);
    for (int const n : o.ranks_of) std::printf(" %d", n);
    std::printf("\n");
    std::fflush(stdout);
    _exit(0);  // MPI cannot be finalized without the lost rank
  } catch (std::exception const& e) {
    std::printf("rank %d: %s\n", rank, e.what());
    std::fflush(stdout);
    _exit(1);
  }
}
