#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# mpi_abandoned.sh MPIRUN PROGRAM: a step that one of three processes begins anew is never mixed with the others'.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# Without these, mpirun ends the others before they can speak.
export OMPI_MCA_orte_enable_recovery=1 OMPI_MCA_orte_abort_on_non_zero_status=0
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
