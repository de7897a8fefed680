# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
dovetail_bench(compress_codecs compress_codecs.cpp)
dovetail_program(bench_compress_pareto compress_pareto.cpp O1)
if(dovetail_mpi_FOUND AND MPIEXEC_EXECUTABLE)
  dovetail_program(bench_compress_hosts compress_hosts.cpp LIBS dovetail::mpi)
  target_compile_definitions(bench_compress_hosts PRIVATE DOVETAIL_MPIEXEC="${MPIEXEC_EXECUTABLE}"
                             DOVETAIL_COMM_HOSTS="${CMAKE_CURRENT_LIST_DIR}/comm_hosts.sh")
endif()
