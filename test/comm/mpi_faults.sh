#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_faults.sh MPIRUN PROGRAM: what goes wrong among ranks that live is told soon, and of the right rank. And on one
# core, where who waits must leave it to the others; and with a /dev/shm that has no room for MPI and us.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
mpirun=$1 program=$2 failed=0
timeout 400 "$mpirun" -n 4 "$program" || failed=1
if [ -x "$(command -v taskset)" ]; then
  timeout 60 taskset -c 0 "$mpirun" -n 2 "$program" one_core || failed=1
else
  echo "not tried on one core: there is no taskset"
fi
# shellcheck disable=SC2016
small='mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
if unshare -m sh -c 'mount -t tmpfs -o size=64m tmpfs /dev/shm' 2> /dev/null; then
  timeout 60 unshare -m sh -c "$small" sh "$mpirun" -n 2 "$program" many || failed=1
else
  echo "not tried with a small /dev/shm: mounting one is not allowed here"
fi
exit $failed
