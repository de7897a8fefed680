#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# first_demo.sh: the demonstration in its short form, as the first command of a newcomer, from the packages to be
# installed to the files that it leaves.
set -eu
cd "$(dirname "$0")/../.."
out=build/first_demo
mkdir -p build
./run demo --ranks 2 --steps 20 --out "$out" > "$out.txt" || { cat "$out.txt"; exit 1; }
cat "$out.txt"
for words in 'bits per character' 'sequences/s' 'what the dense model writes'; do
  grep -qF "$words" "$out.txt" || { echo "the table lacks: $words"; exit 1; }
done
for file in dense.safetensors top_k.safetensors dense.jsonl top_k.jsonl trace.json loss.gp loss.svg loss.png; do
  [ -s "$out/$file" ] || { echo "missing: $out/$file"; exit 1; }
done
echo "first demo: all that it promises is there"
