#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# cli.sh CHAR_RNN LENET DIGITS: options that cannot work fail at once and say why; a run that came to nothing, and output
# that did not arrive, are no success; a terminal that goes away loses no step.
set -eu
char_rnn=$1 lenet=$2 digits=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
i=0
while [ $i -lt 200 ]; do
  echo "static int field_$i(struct device *dev) { return dev->field[$i] * $((i * 7919 % 1000)); }"
  i=$((i + 1))
done > "$folder/text.c"
"$digits" "$folder/drawn" 600 100 > /dev/null

# refused WORDS COMMAND...: fails within ten seconds, says WORDS on stderr, and leaves no folder behind.
refused() {
  words=$1
  shift
  code=0
  timeout 10 "$@" > "$folder/stdout" 2> "$folder/stderr" || code=$?
  if [ $code -eq 0 ] || [ $code -ge 124 ]; then echo "exit $code: $*"; exit 1; fi
  grep -qF -e "$words" "$folder/stderr" || { echo "did not say '$words': $*"; cat "$folder/stderr"; exit 1; }
  [ ! -e "$folder/none" ] || { echo "left a folder: $*"; exit 1; }
}
for option in '--lr -1' '--lr nan' '--lr inf' '--lr 0' '--lr x' '--ratio nan' '--ratio 0' '--ratio 2' '--ratio -1' \
  '--batch 0' '--batch -3' '--batch 100000000000000000000' '--steps 0' '--steps -1' '--steps 99999999999999999999' \
  '--ranks 0' '--ranks -1' '--ranks 1000000' '--seed -1' '--seed 1.5' '--steps 10x'; do
  # shellcheck disable=SC2086
  refused "${option%% *}" "$char_rnn" --text "$folder/text.c" --out "$folder/none" $option
done
for option in '--lr -1' '--lr nan' '--lr 1e99' '--batch 0' '--batch 100000000000000000000' '--epochs 0' '--epochs -1' \
  '--ranks 0'; do
  # shellcheck disable=SC2086
  refused "${option%% *}" "$lenet" "$folder/drawn" $option
done
refused 'use a batch of at most' "$lenet" "$folder/drawn" --batch 100000
# Optimizers by name.
refused "there is no optimizer 'adamv' (did you mean 'adam'?): there are adabelief, adafactor" \
  "$lenet" "$folder/drawn" --optimizer adamv
refused 'beta1 is 1: it must be at least 0 and below 1' "$lenet" "$folder/drawn" --optimizer adam --set beta1=1
refused "(did you mean 'lr'?): it has lr, momentum" "$lenet" "$folder/drawn" --set rl=1
refused "'lr' is no setting" "$lenet" "$folder/drawn" --set lr
refused 'lion has no hyperparameter' "$char_rnn" --text "$folder/text.c" --out "$folder/none" --optimizer lion --set x=1
refused 'of --optimizer NAME' "$char_rnn" --text "$folder/text.c" --out "$folder/none" --set lr=1
for program in "$char_rnn" "$lenet"; do
  "$program" --optimizer list | grep -q '^adamw  *lr=0.001 beta1=0.9' || { echo "no list of optimizers: $program"; exit 1; }
done
echo "options that cannot work are refused"

given="--text $folder/text.c --ranks 2 --batch 4 --ratio 0.05"
# A run that came to nothing: with so few steps fit does not give up by itself.
code=0
# shellcheck disable=SC2086
"$char_rnn" $given --steps 5 --lr 1e6 --out "$folder/diverged" > /dev/null 2> "$folder/stderr" || code=$?
[ $code -eq 1 ] && grep -q 'diverged' "$folder/stderr" ||
  { echo "a diverged char_rnn: exit $code"; cat "$folder/stderr"; exit 1; }
code=0
"$lenet" "$folder/drawn" --ranks 2 --batch 100 --epochs 1 --lr 1e6 > /dev/null 2> "$folder/stderr" || code=$?
[ $code -eq 1 ] && grep -qE 'diverged|not finite' "$folder/stderr" ||
  { echo "a diverged lenet: exit $code"; cat "$folder/stderr"; exit 1; }
echo "a run that diverged is no success"

if [ -e /dev/full ]; then
  code=0
  # shellcheck disable=SC2086
  "$char_rnn" $given --steps 2 --out "$folder/full" > /dev/full 2> "$folder/stderr" || code=$?
  [ $code -eq 1 ] && grep -q 'standard output cannot be written' "$folder/stderr" ||
    { echo "char_rnn > /dev/full: exit $code"; cat "$folder/stderr"; exit 1; }
  code=0
  "$lenet" "$folder/drawn" --epochs 1 > /dev/full 2> "$folder/stderr" || code=$?
  [ $code -eq 1 ] && grep -q 'standard output cannot be written' "$folder/stderr" ||
    { echo "lenet > /dev/full: exit $code"; cat "$folder/stderr"; exit 1; }
  echo "a full standard output is an error"
fi

# SIGHUP: saves as Ctrl-C does; --resume says what it found.
# shellcheck disable=SC2086
"$char_rnn" $given --steps 100000 --out "$folder/run" --resume > /dev/null 2> "$folder/stderr" & pid=$!
waited=0
until [ -e "$folder/run/dense.jsonl" ] || [ $waited -ge 600 ]; do sleep 0.05; waited=$((waited + 1)); done
kill -HUP $pid
code=0
wait $pid || code=$?
[ $code -eq 130 ] && [ -s "$folder/run/dense.safetensors" ] ||
  { echo "after SIGHUP: exit $code"; cat "$folder/stderr"; exit 1; }
grep -q 'there is no .*dense.safetensors to go on from' "$folder/stderr" ||
  { echo "--resume did not say that there is no checkpoint"; cat "$folder/stderr"; exit 1; }
echo "SIGHUP saves; --resume without a checkpoint says so"
