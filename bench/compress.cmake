# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
dovetail_bench(compress_codecs compress_codecs.cpp)
if(TARGET bench_compress_codecs)
  target_compile_definitions(bench_compress_codecs PRIVATE DOVETAIL_BENCH_SOURCE="${CMAKE_CURRENT_SOURCE_DIR}")
endif()
dovetail_bench(compress_fused compress_fused.cpp)
dovetail_program(bench_compress_pareto compress_pareto.cpp O1)
if(dovetail_mpi_FOUND AND MPIEXEC_EXECUTABLE)
  dovetail_program(bench_compress_hierarchical compress_hierarchical.cpp LIBS dovetail::mpi)
  dovetail_program(bench_compress_hosts compress_hosts.cpp LIBS dovetail::mpi)
  target_compile_definitions(bench_compress_hosts PRIVATE DOVETAIL_MPIEXEC="${MPIEXEC_EXECUTABLE}"
                             DOVETAIL_COMM_HOSTS="${CMAKE_CURRENT_LIST_DIR}/comm_hosts.sh")
endif()
find_package(CLI11 CONFIG QUIET)
# Every codec of the registry, as the tests know it.
if(TARGET CLI11::CLI11 AND TARGET nlohmann_json::nlohmann_json)
  set(registry ${PROJECT_SOURCE_DIR}/test/compress)
  dovetail_program(bench_codecs codecs.cpp ${registry}/known.cpp ${registry}/part.cpp
                   LIBS CLI11::CLI11 nlohmann_json::nlohmann_json)
  target_compile_definitions(bench_codecs PRIVATE DOVETAIL_CODECS_ALONE)
else()
  message(STATUS "dovetail: bench_codecs is left out: it needs CLI11 and nlohmann-json (Debian: libcli11-dev nlohmann-json3-dev)")
endif()
