#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# demo.sh CHAR_RNN: a short run leaves all that it promises; stopped by Ctrl-C and resumed, it ends with the same weights.
set -eu
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
i=0
while [ $i -lt 300 ]; do
  echo "static int field_$i(struct device *dev) { return dev->field[$i] * $((i * 7919 % 1000)); }"
  i=$((i + 1))
done > "$folder/text.c"
set -- --text "$folder/text.c" --ranks 2 --batch 4 --steps 30 --ratio 0.05

"$program" "$@" --out "$folder/whole" > "$folder/table"
cat "$folder/table"
for words in 'bits per character' 'sequences/s' 'bytes/(rank and step)' 'bigram'; do
  grep -qF "$words" "$folder/table" || { echo "the table lacks: $words"; exit 1; }
done
for file in dense.safetensors top_k.safetensors dense.jsonl top_k.jsonl trace.json loss.gp; do
  [ -s "$folder/whole/$file" ] || { echo "missing: $file"; exit 1; }
done
if command -v gnuplot > /dev/null; then
  for file in loss.svg loss.png; do [ -s "$folder/whole/$file" ] || { echo "missing: $file"; exit 1; }; done
fi
ls "$folder"/whole/tensorboard/*/events.out.tfevents.* > /dev/null
[ "$(wc -l < "$folder/whole/dense.jsonl")" -eq 30 ] || { echo "dense.jsonl has not one line a step"; exit 1; }
grep -q 'exchange bucket' "$folder/whole/trace.json"

# Interrupted after the first report: the loop goes on until --resume has nothing left to do.
tries=0
until "$program" "$@" --out "$folder/parts" --resume > /dev/null 2> "$folder/stderr" & pid=$!
      [ $tries -ge 3 ] || { sleep 0.7; kill -INT $pid 2> /dev/null || true; }
      wait $pid; do
  tries=$((tries + 1))
  [ $tries -lt 20 ] || { echo "never came to an end"; cat "$folder/stderr"; exit 1; }
  grep -q 'go on with --resume' "$folder/stderr" || { echo "Ctrl-C was not answered:"; cat "$folder/stderr"; exit 1; }
done
for name in dense top_k; do
  cmp "$folder/whole/$name.safetensors" "$folder/parts/$name.safetensors" || { echo "$name differs when resumed"; exit 1; }
  [ "$(wc -l < "$folder/parts/$name.jsonl")" -eq 30 ] || { echo "$name.jsonl has not one line a step when resumed"; exit 1; }
done
echo "interrupted $tries times and resumed: the same bytes"
