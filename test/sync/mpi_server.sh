#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_server.sh MPIRUN PROGRAM: an asynchronous server and three workers that are processes; it outlives one of them.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 failed=0
for transport in shared messages; do
  for way in all killed throws; do
    expected=3
    [ $way = all ] && expected=4
    output=$(timeout 100 "$mpirun" -n 4 --enable-recovery "$program" $way $transport 2> /dev/null)
    ok=$(echo "$output" | grep -c '^rank [0-9]* ok')
    echo "$way $transport: $ok of $expected"
    [ "$ok" = "$expected" ] || { failed=1; echo "$output"; }
  done
done
exit $failed
