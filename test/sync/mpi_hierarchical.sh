#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_hierarchical.sh MPIRUN PROGRAM: sums inside of hosts and payloads between them have the bits of threads on processes,
# on pretended hosts and, where the machine can have them (two_hosts.sh), on two; who is lost, or diverges, is named.
set -eu
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
# shellcheck source=test/two_hosts.sh
. "$(dirname "$0")/../two_hosts.sh"
be_modest
keep_the_others
MPIRUN=$1 program=$2
same() {
  echo "$1: $2"
  [ "$2" = "$3" ] || { echo "the results differ from those of threads: $3"; exit 1; }
}
for on in 1,1 2,2 3,1 2,1,3 4; do
  ranks=$(($(echo "$on" | tr , +)))
  same "hosts of $on ranks" "$("$MPIRUN" -n "$ranks" "$program" bits "$on")" "$("$program" threads "$on")"
done
for what in lost diverged; do
  for on in 1,1 2,2 1,2,2; do
    ranks=$(($(echo "$on" | tr , +)))
    expected=$ranks
    [ $what = diverged ] || expected=$((ranks - 1))
    output=$(timeout 60 "$MPIRUN" -n "$ranks" --enable-recovery "$program" $what "$on" 2> /dev/null) || :
    ok=$(echo "$output" | grep -c '^rank [0-9] ok') || :
    echo "$what on $on: $ok of $expected ranks: $(echo "$output" | head -n 1)"
    [ "$ok" = "$expected" ] || { echo "$output"; exit 1; }
  done
done
two_hosts unshaped || { echo "skipped: results on two hosts"; exit 0; }
for on in 1,1 2,1 2,2; do
  same "two hosts of $on ranks" "$(on_two_hosts "${on%,*}" "${on#*,}" "$program" bits real)" "$("$program" threads "$on")"
done
