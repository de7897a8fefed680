#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_abandoned.sh MPIRUN PROGRAM: a step that one of three processes begins anew is never mixed with the others'.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 failed=0
for transport in shared messages; do
  for buckets in 1 2 3; do
    output=$(timeout 60 "$mpirun" -n 3 --enable-recovery "$program" $transport $buckets 2> /dev/null)
    ok=$(echo "$output" | grep -c '^rank [012] ok')
    echo "$transport, abandoned after $buckets: $ok of 3 ranks: $(echo "$output" | head -n 1)"
    [ "$ok" = 3 ] || { failed=1; echo "$output"; }
  done
done
exit $failed
