#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# lost_rank.sh MPIRUN PROGRAM: whatever becomes of one of three ranks, the two others say so, and end.
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
keep_the_others
mpirun=$1 program=$2 failed=0
# Every way with all_reduce; the ways in the midst of an operation with all of them.
try() {
  output=$(timeout 40 "$mpirun" -n 3 --enable-recovery "$program" "$@" 2> /dev/null)
  ok=$(echo "$output" | grep -c '^rank [01] ok')
  echo "$*: $ok of 2 ranks: $(echo "$output" | head -n 1)"
  [ "$ok" = 2 ] || { failed=1; echo "$output"; }
}
stopped_far_away() {
  before=$failed
  try stops hosts=2,1 "$1"
  [ $failed = "$before" ] || { failed=$before; return 1; }
}
for transport in shared messages checked; do
  for way in killed killed_in_split killed_behind_split exits throws sleeps diverges returns away away_killed; do
    # Over messages alone divergence is found from envelopes, not for certain with the right rank: that is what checks
    # are for.
    [ "$transport $way" = "messages diverges" ] || try $way $transport
  done
done
for operation in all_reduce reduce_scatter all_gather all_gather_v all_to_all broadcast broadcast_from_last; do
  for transport in shared staged messages; do
    try killed_midway $transport $operation
  done
  for way in killed throws stops other shorter; do
    [ "$way $operation" = "shorter all_gather_v" ] || try $way shared $operation  # whose lengths may differ
  done
done
# Two hosts: the others hear of it from the one that sees it, or find that it does not answer.
for operation in all_reduce reduce_scatter all_gather all_gather_v broadcast broadcast_from_last; do
  for way in killed_midway throws stops other; do try $way hosts=1,2 $operation; done
  # Who waits for who waits for the lost one has a quarter of a second to say so, which a busy machine may not give it.
  stopped_far_away $operation || stopped_far_away $operation || failed=1
done
try killed_midway hosts=2,1
try shorter hosts=1,2
try no_memory shared all_gather_v
try no_memory staged all_gather_v
exit $failed
