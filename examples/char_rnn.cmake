# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# ./run demo: needs oneDNN, nlohmann-json and CLI11; MPI where there is one.
find_package(CLI11 CONFIG QUIET)
if(TARGET dovetail::onednn AND TARGET dovetail::io AND TARGET CLI11::CLI11)
  set(mpi)
  if(TARGET dovetail::mpi)
    set(mpi dovetail::mpi)
  endif()
  dovetail_program(char_rnn ${CMAKE_CURRENT_LIST_DIR}/char_rnn.cpp
                   LIBS example_optimizers dovetail::onednn dovetail::io CLI11::CLI11 ${mpi})
  if(mpi)
    target_compile_definitions(char_rnn PRIVATE CHAR_RNN_MPI)
  endif()
else()
  message(STATUS "dovetail: char_rnn is left out: it needs oneDNN, nlohmann-json and CLI11")
endif()
