#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# same_losses.sh PROGRAM MPIRUN RANKS: threads and MPI must print the same losses, to the last bit.
set -eu
program=$1 mpirun=$2 ranks=$3
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$program" "$ranks" > "$folder/threads"
"$mpirun" -n "$ranks" "$program" mpi > "$folder/mpi"
[ "$(wc -l < "$folder/threads")" -eq 110 ] || { echo "expected 8 runs of 12 steps and an evaluation, and 6 buffers:"; cat "$folder/threads"; exit 1; }
diff "$folder/threads" "$folder/mpi" || { echo "threads (<) and MPI (>) differ on $ranks ranks"; exit 1; }
tail -n 1 "$folder/threads"
echo "threads and MPI agree to the last bit on $ranks ranks"
