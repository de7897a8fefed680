#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# lenet.sh LENET DIGITS WORK: the example learns drawn digits from IDX files, dense and compressed.
set -eu
rm -rf "$3"
"$2" "$3" 4000 500
for exchange in "" --compress; do
  # shellcheck disable=SC2086
  "$1" "$3" --ranks 2 --batch 32 --epochs 4 --lr 0.02 $exchange | tee "$3/output"
  awk -v how="${exchange:-dense}" '/test accuracy/ { accuracy = $7 }
    END { if (accuracy + 0 < 95) { print how ": test accuracy " accuracy " %, expected 95"; exit 1 } }' "$3/output"
done
