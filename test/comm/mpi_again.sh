#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_again.sh MPIRUN PROGRAM: communicators made, split and destroyed again and again give the bits of threads.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
mpirun=$1 program=$2 failed=0
for ranks in 2 3 4; do
  threads=$("$program" threads "$ranks")
  for how in "" messages; do
    mpi=$(timeout 60 "$mpirun" -n "$ranks" "$program" mpi $how)
    echo "mpi ${how:-shared}: $mpi; threads: $threads"
    [ -n "$mpi" ] && [ "$mpi" = "$threads" ] || failed=1
  done
done
exit $failed
