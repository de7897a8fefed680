#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_messages.sh MPIRUN PROGRAM: messages between ranks that are processes; and those who are left go on without a rank
# that was killed, threw, or did not come.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 failed=0
run() {  # ranks, way, transport, how many say that all is well
  output=$(timeout 100 "$mpirun" -n "$1" --enable-recovery "$program" "$2" "$3" 2> /dev/null)
  ok=$(echo "$output" | grep -c '^rank [0-9]* ok')
  echo "$2 $3, $1 ranks: $ok of $4"
  [ "$ok" = "$4" ] || { failed=1; echo "$output"; }
}
for transport in shared messages; do
  for ranks in 1 2 3 5; do run $ranks all $transport $ranks; done
  for way in killed exits throws; do run 4 $way $transport 3; done
  run 3 killed $transport 2
  run 4 late $transport 4
  run 4 aborted $transport 4
done
exit $failed
