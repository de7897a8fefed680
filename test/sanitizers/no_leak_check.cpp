// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Part of programs that use MPI, under the address sanitizer: Open MPI's plugins keep memory until the end and are
// unloaded before leaks are looked for, so that no suppression can name them. Everything else is still checked, and all
// is where a program did not start MPI.
#include <mpi.h>

extern "C" int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() {
  int started = 0;
  MPI_Initialized(&started);
  return started;
}
