#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# lost_rank.sh MPIRUN PROGRAM: whatever becomes of one of three ranks, the two others say so, and end.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
# Without these, mpirun ends the survivors before they can speak.
export OMPI_MCA_orte_enable_recovery=1 OMPI_MCA_orte_abort_on_non_zero_status=0
mpirun=$1 program=$2 failed=0
for transport in shared messages checked; do
  for way in killed exits throws sleeps diverges returns away away_killed; do
    # Over messages alone divergence is found from envelopes, not for certain with the right rank: that is what checks
    # are for.
    [ "$transport $way" = "messages diverges" ] && continue
    output=$(timeout 40 "$mpirun" -n 3 --enable-recovery "$program" $way $transport 2> /dev/null)
    ok=$(echo "$output" | grep -c '^rank [01] ok')
    echo "$way $transport: $ok of 2 ranks: $(echo "$output" | head -n 1)"
    [ "$ok" = 2 ] || { failed=1; echo "$output"; }
  done
done
exit $failed
