# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Two ranks need a harness of their own: these are plain programs.
dovetail_program(bench_comm_threads comm_threads.cpp)
if(dovetail_mpi_FOUND AND MPIEXEC_EXECUTABLE)
  dovetail_program(bench_comm_all_reduce comm_all_reduce.cpp LIBS dovetail::mpi)
  target_compile_definitions(bench_comm_all_reduce PRIVATE DOVETAIL_MPIEXEC="${MPIEXEC_EXECUTABLE}")
endif()
