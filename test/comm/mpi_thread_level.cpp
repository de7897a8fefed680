// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A program that told MPI it has one thread cannot have comm::async call MPI from another.
#include <dovetail/comm/async.hpp>
#include <dovetail/comm/mpi.hpp>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  int level = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &level);
  bool refused = false;
  {
    dovetail::comm::mpi world(MPI_COMM_WORLD);
    try {
      dovetail::comm::async owner(world, dovetail::comm::progress::thread);
    } catch (dovetail::argument_error const& e) {
      refused = std::string(e.what()).find("MPI_Init_thread with MPI_THREAD_SERIALIZED") != std::string::npos;
      std::printf("%s\n", e.what());
    }
  }
  MPI_Finalize();
  if (level > MPI_THREAD_FUNNELED) {
    std::printf("this MPI gives more threads than were asked for: nothing to refuse\n");
    return refused ? 1 : 0;
  }
  return refused ? 0 : 1;
}
