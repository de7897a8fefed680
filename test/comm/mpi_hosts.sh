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
for on in 1,1 2,2 3,1 1,2 2,1,2 1,1,1 2,4,2; do
  ranks=$(($(echo "$on" | tr , +)))
  said=$("$MPIRUN" -n "$ranks" "$hosts" "$on")
  echo "hosts of $on ranks: $said"
done
# In the middle of eight ranks results go on as far as they are wanted, and halves on their way are floats.
threads=$("$conformance" threads 8)
for how in hosts=2,4,2 "hosts=2,4,2 pieces" "hosts=2,4,2 lanes"; do
  there=$("$MPIRUN" -n 8 "$conformance" mpi "$how")
  echo "$how: $there"
  [ "$there" = "$threads" ] || { echo "the results differ from those of threads: $threads"; exit 1; }
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
    [ "${pair#* }" -ge "${pair% *}" ] && [ "${pair#* }" -le $((${pair% *} + ${pair% *} / 16 + 150000)) ] ||
      { echo "what has left a host is not what was counted"; exit 1; }
  done
done
for on in "1 1" "2 1" "2 2"; do
  # shellcheck disable=SC2086
  there=$(on_two_hosts $on "$conformance" mpi hosts) threads=$("$conformance" threads $((${on% *} + ${on#* })))
  echo "$on ranks: $there"
  [ "$there" = "$threads" ] || { echo "the results differ from those of threads: $threads"; exit 1; }
done
