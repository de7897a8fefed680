#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_hosts.sh MPIRUN HOSTS CONFORMANCE: ranks on several hosts. What they count as leaving a host is what HOSTS expects;
# where the machine can have two hosts (two_hosts.sh), it is also what their link has carried, and the results of
# CONFORMANCE there are the bits of threads.
set -eu
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
# shellcheck source=test/two_hosts.sh
. "$(dirname "$0")/../two_hosts.sh"
be_modest
MPIRUN=$1 hosts=$2 conformance=$3
for on in 1,1 2,2 3,1 1,2 2,1,2 1,1,1; do
  ranks=$(echo "$on" | tr , + | xargs -I {} sh -c 'echo $(({}))')
  echo "hosts of $on ranks: $("$MPIRUN" -n "$ranks" "$hosts" "$on")"
done

two_hosts unshaped || { echo "skipped: what two hosts send is not compared with what is counted"; exit 0; }
for on in "1 1" "2 2" "3 1"; do
  a=$(sent_by_host a) b=$(sent_by_host b)
  # shellcheck disable=SC2086 # two numbers
  counted=$(on_two_hosts $on "$hosts")
  a=$(($(sent_by_host a) - a)) b=$(($(sent_by_host b) - b))
  echo "$on ranks: counted $counted, sent $a $b"
  # Packets have headers, and those of mpirun and of small messages are among them.
  for pair in "${counted% *} $a" "${counted#* } $b"; do
    [ "${pair#* }" -ge "${pair% *}" ] && [ "${pair#* }" -le $((${pair% *} + ${pair% *} / 8 + 400000)) ] ||
      { echo "what has left a host is not what was counted"; exit 1; }
  done
done
for on in "1 1" "2 1" "2 2"; do
  # shellcheck disable=SC2086
  there=$(on_two_hosts $on "$conformance" mpi hosts) threads=$("$conformance" threads $((${on% *} + ${on#* })))
  echo "$on ranks: $there"
  [ "$there" = "$threads" ] || { echo "the results differ from those of threads: $threads"; exit 1; }
done
