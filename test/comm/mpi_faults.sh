#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_faults.sh MPIRUN PROGRAM: what goes wrong among ranks that live is told soon, and of the right rank. And on one
# core, where who waits must leave it to the others; and with a /dev/shm that has no room for MPI and us.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none  # the slow way, on which messages need both ranks
mpirun=$1 program=$2 failed=0
timeout 120 "$mpirun" -n 4 "$program" || failed=1
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
