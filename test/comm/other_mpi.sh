#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# other_mpi.sh MPICXX MPIRUN REPOSITORY WORK: the same headers with another MPI, without Boost.MPI: what every communicator
# must do, with the results of threads, on one host and on several, and what goes on when a rank is lost. (A process that
# is killed is left out: Debian's MPICH 4.0 ends the others, also with -disable-auto-cleanup.)
set -eu
mpicxx=$1 mpirun=$2 repository=$3 work=$4 failed=0
mkdir -p "$work"
# shellcheck source=test/mpi_environment.sh
. "$repository/test/mpi_environment.sh"
be_modest
keep_the_others
survive=
case $("$mpirun" --version 2>&1) in
  *HYDRA*) survive=-disable-auto-cleanup ;;
  *"Open MPI) 4"*) survive=--enable-recovery ;;
  *"Open MPI) "*) survive="--runtime-options recoverable,continuous,error-nonzero-status=false" ;;
esac
for program in conformance mpi_messages; do
  "$mpicxx" -std=c++20 -I"$repository/include" -I"$repository/test" "$repository/test/comm/$program.cpp" \
    -o "$work/$program" -pthread &
done
wait
for ranks in 1 2 3 4; do
  threads=$("$work/conformance" threads $ranks)
  case $ranks in
    2) hosts=hosts=1,1 ;;
    3) hosts=hosts=2,1 ;;
    4) hosts=hosts=2,2 ;;
    *) hosts= ;;
  esac
  for how in "" plain $hosts; do
    mpi=$(timeout 200 "$mpirun" -n $ranks "$work/conformance" mpi $how) || failed=1
    echo "mpi ${how:-shared}  $mpi"
    [ "$mpi" = "$threads" ] || { failed=1; echo "the results differ from those of threads: $threads"; }
  done
done
run() {  # ranks, way, transport, how many say that all is well
  output=$(timeout 100 "$mpirun" $survive -n "$1" "$work/mpi_messages" "$2" "$3" 2>&1) || true
  ok=$(echo "$output" | grep -c '^rank [0-9]* ok') || true
  echo "$2 $3, $1 ranks: $ok of $4"
  [ "$ok" = "$4" ] || { failed=1; echo "$output"; }
}
for transport in shared messages; do
  run 3 all $transport 3
  run 4 throws $transport 3
  run 4 late $transport 4
  run 4 aborted $transport 4
done
exit $failed
