#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# same_bits.sh MPIRUN PROGRAM RANKS: the suite passes on threads and on MPI in each of its ways, with equal results.
set -eu
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
mpirun=$1 program=$2 ranks=$3
threads=$("$program" threads "$ranks")
echo "threads        $threads"
for how in "" plain checked pieces; do
  mpi=$("$mpirun" -n "$ranks" "$program" mpi $how)
  echo "mpi ${how:-shared}  $mpi"
  [ "$mpi" = "$threads" ] || { echo "the results differ"; exit 1; }
done
