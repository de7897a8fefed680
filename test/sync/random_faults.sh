#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# random_faults.sh MPIRUN PROGRAM FROM TO: of 5 processes three are lost one after another, at random, for each of these
# seeds, over shared memory and over messages; those who are left name each and go on.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 seed=$3 faults=0 failed=0
while [ "$seed" -le "$4" ]; do
  for transport in shared messages; do
    output=$(timeout 100 "$mpirun" -n 5 --enable-recovery "$program" "$seed" $transport 2> /dev/null)
    ok=$(echo "$output" | grep -c '^rank [0-9]* ok, [123]$')
    wrong=$(echo "$output" | grep -c 'wrong')
    # All but the victims say so: two, or three where the last one was no loss.
    if [ "$ok" -lt 2 ] || [ "$wrong" -ne 0 ]; then
      failed=1
      echo "seed $seed, $transport:"
      echo "$output"
    fi
    faults=$((faults + 3))
  done
  seed=$((seed + 1))
done
echo "$faults faults of processes"
exit $failed
