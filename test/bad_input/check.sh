#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh CHAR_RNN LENET: the examples given what they cannot work with. They must end by themselves, with an exit code
# that is not 0 and no signal, and what they say last, in one line, must name the trouble.
set -eu
program=$1 lenet=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0

refuses() {  # expected regular expression, arguments…
  expected=$1
  shift
  shown=$*
  for option in "--out $work/out" "--steps 1" "--batch 1" "--ranks 1"; do
    case " $shown " in *" ${option% *} "*) ;; *) set -- "$@" "${option% *}" "${option#* }" ;; esac
  done
  status=0
  timeout 60 "$program" "$@" > "$work/stdout" 2> "$work/stderr" < /dev/null ||
    status=$?
  last=$(cat "$work/stdout" "$work/stderr" | grep -v '^Run with --help' | grep . | tail -n 1)
  if [ "$status" = 0 ] || [ "$status" = 124 ] || [ "$status" -gt 128 ] || ! printf '%s\n' "$last" | grep -Eq -e "$expected"; then
    failed=1
    echo "FAILED   $shown: exit code $status, '$last', expected '$expected'"
  else
    echo "ok       $shown: $last"
  fi
}

awk 'BEGIN { for (l = 0; l < 100; ++l) { for (c = 32; c < 127; ++c) printf "%c", c; print "" } }' > text.c
: > empty.txt
head -c 20 text.c > short.txt
mkdir no_text
echo "a checkpoint that is none" > out_file

refuses 'nowhere' --text "$work/nowhere"
refuses 'empty\.txt' --text "$work/empty.txt"
refuses 'short\.txt' --text "$work/short.txt"
refuses 'no_text' --text "$work/no_text"
refuses 'batch' --text "$work/text.c" --batch 0
refuses 'batch' --text "$work/text.c" --batch -3
refuses 'batch' --text "$work/text.c" --batch many
refuses 'use a batch of at most' --text "$work/text.c" --batch 100000
refuses "'1e30' is not a number from 1e-12 to" --text "$work/text.c" --lr 1e30 --steps 40
refuses 'ranks' --text "$work/text.c" --ranks 0
refuses 'steps' --text "$work/text.c" --steps -1
refuses 'ratio' --text "$work/text.c" --ratio 0
refuses 'ratio' --text "$work/text.c" --ratio nan
refuses "'nan' is not a number from" --text "$work/text.c" --lr nan --steps 40
refuses 'out_file' --text "$work/text.c" --out "$work/out_file"
refuses 'color' --text "$work/text.c" --color blue
mkdir -p "$work/resumed"
echo "not a checkpoint" > "$work/resumed/dense.safetensors"
refuses 'dense\.safetensors' --text "$work/text.c" --out "$work/resumed" --resume
[ "$(cat "$work/resumed/dense.safetensors")" = "not a checkpoint" ] || { echo "a refused checkpoint was touched"; failed=1; }

# What a run with bad input says is one line, and it leaves the files of the run before as they were.
"$program" --text "$work/text.c" --out "$work/good" --steps 2 --batch 1 --ranks 1 > /dev/null 2>&1
cp -r "$work/good" "$work/before"
refuses 'use a batch of at most' --text "$work/text.c" --out "$work/good" --batch 100000
refuses "'nan' is not a number from" --text "$work/text.c" --out "$work/good" --lr nan
"$program" --text "$work/nowhere" --out "$work/good" > /dev/null 2> "$work/stderr" || true
[ "$(wc -l < "$work/stderr")" = 1 ] || { echo "FAILED   not one line:"; cat "$work/stderr"; failed=1; }
diff -r "$work/before" "$work/good" || { echo "FAILED   bad input changed what an earlier run had left"; failed=1; }

refuses_images() {  # expected regular expression, arguments…
  expected=$1
  shift
  status=0
  said=$(timeout 60 "$lenet" "$@" 2>&1 > /dev/null) || status=$?
  if [ "$status" = 1 ] && [ "$(printf '%s\n' "$said" | wc -l)" = 1 ] && printf '%s\n' "$said" | grep -Eq "$expected"; then
    echo "ok       lenet $*: $said"
  else
    failed=1
    echo "FAILED   lenet $*: exit code $status, '$said', expected '$expected'"
  fi
}
mkdir images
refuses_images 'train-images-idx3-ubyte.* put the four IDX files' images
for split in train t10k; do
  printf 'nonsense, and more than a header of sixteen bytes' > images/$split-images-idx3-ubyte
  printf '\0\0\10\1\0\0\0\0' > images/$split-labels-idx1-ubyte
done
refuses_images 'images/train-images-idx3-ubyte.*magic' images
exit "$failed"
