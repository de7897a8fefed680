#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# same_bits.sh MPIRUN PROGRAM RANKS: the suite passes on threads and on MPI in each of its ways, with equal results; and with
# every algorithm.
set -eu
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
mpirun=$1 program=$2 ranks=$3
threads=$("$program" threads "$ranks")
echo "threads        $threads"
for how in "" crumbs staged refused plain checked pieces; do
  mpi=$("$mpirun" -n "$ranks" "$program" mpi $how)
  echo "mpi ${how:-shared}  $mpi"
  [ "$mpi" = "$threads" ] || { echo "the results differ"; exit 1; }
done
# On several hosts, as the ranks say; test/comm/mpi_hosts.sh has two that are.
case $ranks in
  2) hosts=1,1 ;;
  3) hosts="2,1 1,2 1,1,1" ;;
  4) hosts="2,2 3,1 1,2,1" ;;
  5) hosts="2,2,1 1,2,1,1" ;;
  *) hosts= ;;
esac
for on in $hosts; do
  for how in "hosts=$on" "hosts=$on pieces" "hosts=$on lanes"; do
    mpi=$("$mpirun" -n "$ranks" "$program" mpi "$how")
    echo "mpi $how  $mpi"
    [ "$mpi" = "$threads" ] || { echo "the results differ"; exit 1; }
  done
done

if [ "$ranks" -eq 3 ]; then
  keep_the_others
  late=$("$mpirun" -n "$ranks" --enable-recovery "$program" mpi stalled 2> /dev/null)
  [ "$(echo "$late" | grep -c ' ok: ')" -eq "$ranks" ] || { echo "a late reader: $late"; exit 1; }
fi

[ "$ranks" -ge 2 ] && [ "$ranks" -le 4 ] || exit 0
threads=$("$program" threads "$ranks" algorithms)
echo "threads        $threads"
mpi=$("$mpirun" -n "$ranks" "$program" mpi algorithms)
echo "mpi            $mpi"
[ "$mpi" = "$threads" ] || { echo "the results of algorithms differ"; exit 1; }
