#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# bad_input.sh CHAR_RNN: what a user can get wrong is answered by one line with the way out, and an exit code that is not 0.
set -u
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
: > "$folder/empty.txt"
printf 'short' > "$folder/short.txt"
mkdir "$folder/nothing" "$folder/old"
printf 'damaged' > "$folder/old/dense.safetensors"
yes 'int main(void) { return 0; }' | head -n 400 > "$folder/text.c"

failed=0
out=$folder/out
refuses() {  # expected words, arguments…
  expected=$1
  shift
  "$program" --out "$out" "$@" > "$folder/stdout" 2> "$folder/stderr"
  code=$?
  line=$(grep -v '^Run with --help' "$folder/stderr" | tail -n 1)
  case $code in 0 | 13[4-9] | 14*) echo "exit code $code for: $*"; failed=1 ;; esac
  case $line in
    *"$expected"*) echo "ok ($code): $line" ;;
    *) echo "no '$expected' in: $(cat "$folder/stderr") (for: $*)"; failed=1 ;;
  esac
}

refuses 'gone.txt' --text "$folder/gone.txt"
refuses 'is empty' --text "$folder/empty.txt"
refuses 'a window of' --text "$folder/short.txt"
refuses 'holds no file' --text "$folder/nothing"
refuses '0 ranks' --text "$folder/text.c" --ranks 0
refuses 'use a batch of at most' --text "$folder/text.c" --ranks 2 --batch 100000
refuses 'at least 1 sample' --text "$folder/text.c" --batch 0
refuses 'ratio' --text "$folder/text.c" --ratio 7
refuses 'not finite' --text "$folder/text.c" --lr 1e30 --steps 40 --ranks 1
out=$folder/old
refuses 'truncated' --text "$folder/text.c" --resume
[ "$(cat "$folder/old/dense.safetensors")" = damaged ] || { echo "a refused checkpoint was touched"; failed=1; }
exit $failed
