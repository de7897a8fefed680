#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_elastic.sh MPIRUN PROGRAM: of 4 processes that train together two are lost; the others shrink and go on.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 failed=0
for transport in shared messages; do
  for way in killed throws; do
    output=$(timeout 100 "$mpirun" -n 4 --enable-recovery "$program" $way $transport 2> /dev/null)
    ok=$(echo "$output" | grep -c '^rank [0-9]* ok')
    alike=$(echo "$output" | sed -n 's/^rank [0-9]* ok, //p' | sort -u | wc -l)
    echo "$way $transport: $ok of 2"
    if [ "$ok" != 2 ] || [ "$alike" != 1 ]; then
      failed=1
      echo "$output"
    fi
  done
done
exit $failed
