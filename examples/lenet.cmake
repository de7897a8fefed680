# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
find_package(CLI11 CONFIG QUIET)
if(TARGET dovetail::onednn AND TARGET dovetail::gzip AND TARGET CLI11::CLI11)
  dovetail_program(lenet ${CMAKE_CURRENT_LIST_DIR}/lenet.cpp
                   LIBS example_optimizers dovetail::onednn dovetail::gzip CLI11::CLI11)
else()
  message(STATUS "dovetail: lenet is left out: it needs oneDNN, zlib and CLI11")
endif()
