#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# same_losses.sh PROGRAM MPIRUN RANKS: threads and MPI must print the same losses, to the last bit.
set -eu
program=$1 mpirun=$2 ranks=$3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$program" "$ranks" > "$folder/threads"
"$mpirun" -n "$ranks" "$program" mpi > "$folder/mpi"
[ "$(wc -l < "$folder/threads")" -eq 78 ] || { echo "expected 6 runs of 12 steps and an evaluation:"; cat "$folder/threads"; exit 1; }
diff "$folder/threads" "$folder/mpi" || { echo "threads (<) and MPI (>) differ on $ranks ranks"; exit 1; }
tail -n 1 "$folder/threads"
echo "threads and MPI agree to the last bit on $ranks ranks"
