#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# demo.sh CHAR_RNN [MPIRUN]: a short run leaves all that it promises; stopped by Ctrl-C and resumed, it ends with the
# same bytes, and so it does as processes.
set -eu
program=$1 mpirun=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
i=0
while [ $i -lt 300 ]; do
  echo "static int field_$i(struct device *dev) { return dev->field[$i] * $((i * 7919 % 1000)); }"
  i=$((i + 1))
done > "$folder/text.c"
given="--text $folder/text.c --batch 4 --steps 40 --ratio 0.05"

"$program" $given --ranks 2 --overlap --out "$folder/whole" > "$folder/table"
cat "$folder/table"
for words in 'bits per character' 'sequences/s' 'bytes/(rank and step)' 'bigram' 'what the dense model writes'; do
  grep -qF "$words" "$folder/table" || { echo "the table lacks: $words"; exit 1; }
done
for file in dense.safetensors top_k.safetensors dense.jsonl top_k.jsonl trace.json loss.gp; do
  [ -s "$folder/whole/$file" ] || { echo "missing: $file"; exit 1; }
done
if command -v gnuplot > /dev/null; then
  for file in loss.svg loss.png; do [ -s "$folder/whole/$file" ] || { echo "missing: $file"; exit 1; }; done
fi
ls "$folder"/whole/tensorboard/*/events.out.tfevents.* > /dev/null
[ "$(wc -l < "$folder/whole/dense.jsonl")" -eq 40 ] || { echo "dense.jsonl has not one line a step"; exit 1; }

# A folder that another run writes in is refused.
if flock "$folder/whole/.lock" "$program" $given --ranks 2 --out "$folder/whole" > /dev/null 2> "$folder/stderr"; then
  echo "two runs wrote in one folder"; exit 1
fi
grep -q 'is used by another run' "$folder/stderr" || { cat "$folder/stderr"; exit 1; }

# In most steps some bucket of a rank is exchanged while the same rank computes (--overlap: there are two cores).
awk -F'[:,{}"]+' '
  /"name":"(forward and backward|exchange bucket)"/ {
    for (f = 1; f <= NF; ++f) {
      if ($f == "pid") rank = $(f + 1); if ($f == "ts") begin = $(f + 1); if ($f == "dur") long = $(f + 1)
    }
    if (/forward/) { n = ++computed[rank]; from[rank, n] = begin; to[rank, n] = begin + long }
    else { n = ++exchanged[rank]; at[rank, n] = begin }
  }
  END {
    for (n = 1; n <= computed[0]; ++n) {
      inside = 0
      for (e = 1; e <= exchanged[0]; ++e) inside += at[0, e] > from[0, n] && at[0, e] < to[0, n]
      overlapped += inside > 0
    }
    print overlapped + 0 " of " computed[0] " steps exchange while they compute"
    exit !(computed[0] == 80 && overlapped >= 40)
  }' "$folder/whole/trace.json"

# Interrupted at the first sign of each of the two trainings, then left alone. A training that was faster than the
# signal is thrown away and begun anew. The ranks get the signal themselves: mpirun takes two seconds to pass it on.
#   stop_and_resume FOLDER COMMAND...
cat > "$folder/rank.sh" <<'END'
echo $$ > "$(dirname "$0")/ranks/$$"
exec "$@"
END
stop_and_resume() {
  out=$1
  shift
  for name in dense top_k; do
    trials=0
    while :; do
      rm -rf "$folder/ranks"
      mkdir "$folder/ranks"
      "$@" $given --out "$out" --resume > /dev/null 2> "$folder/stderr" & pid=$!
      waited=0
      until [ -e "$out/$name.jsonl" ] || [ $waited -ge 3000 ]; do sleep 0.01; waited=$((waited + 1)); done
      # shellcheck disable=SC2046
      kill -INT $(ls "$folder/ranks") 2> /dev/null || true
      status=0
      wait $pid || status=$?
      if [ $status -ne 0 ]; then  # and before the next training had begun
        [ $name = dense ] && [ -e "$out/top_k.jsonl" ] || break
      fi
      trials=$((trials + 1))
      [ $trials -lt 10 ] || { echo "$name: was not interrupted in $trials trials"; exit 1; }
      rm -f "$out/top_k".*
      [ $name = top_k ] || rm -f "$out/dense".*
    done
    grep -q "$name: stopped at step .* go on with --resume" "$folder/stderr" ||
      { echo "$name: Ctrl-C was not answered:"; cat "$folder/stderr"; exit 1; }
  done
  "$@" $given --out "$out" --resume > /dev/null 2> "$folder/stderr" || { cat "$folder/stderr"; exit 1; }
  for name in dense top_k; do
    cmp "$folder/whole/$name.safetensors" "$out/$name.safetensors" || { echo "$name differs when resumed"; exit 1; }
    [ "$(wc -l < "$out/$name.jsonl")" -eq 40 ] || { echo "$name.jsonl has not one line a step when resumed"; exit 1; }
  done
}
stop_and_resume "$folder/parts" sh "$folder/rank.sh" "$program" --ranks 2
echo "interrupted twice and resumed: the same bytes"

if [ -z "$mpirun" ]; then
  echo "no MPI here: not run as processes"
  exit 0
fi
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../mpi_environment.sh"
be_modest
stop_and_resume "$folder/processes" "$mpirun" -n 2 sh "$folder/rank.sh" "$program"
echo "as processes, interrupted twice and resumed: the same bytes"
