#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_again.sh MPIRUN PROGRAM: communicators made, split and destroyed again and again give the bits of threads.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
mpirun=$1 program=$2 failed=0
for ranks in 2 3 4; do
  threads=$("$program" threads "$ranks")
  for how in "" messages; do
    mpi=$(timeout 120 "$mpirun" -n "$ranks" "$program" mpi $how)
    echo "mpi ${how:-shared}: $mpi; threads: $threads"
    [ -n "$mpi" ] && [ "$mpi" = "$threads" ] || failed=1
  done
done
exit $failed
