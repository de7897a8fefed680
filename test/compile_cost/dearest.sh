#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# dearest.sh BUILD [COUNT]: the dearest compilations of a tree that Ninja has built from nothing, in seconds on the clock,
# and the sum of all. What a compiler cache had is cheap here: build without one.
set -eu
log=$1/.ninja_log count=${2:-10}
[ -r "$log" ] || { echo "dearest.sh: there is no $log: build the tree with Ninja" >&2; exit 1; }
# Ninja writes: begin and end in ms, time stamp, output, hash of the command; of several builds the last counts.
awk -F '\t' -v count="$count" '
  NF == 5 && $4 ~ /\.o$/ { seconds[$4] = ($2 - $1) / 1000 }
  END {
    for (o in seconds) {
      sum += seconds[o]
      name = o
      gsub(/CMakeFiles\/|\.dir|\.o$/, "", name)
      printf "%7.1f  %s\n", seconds[o], name | ("sort -rn | head -n " count)
    }
    close("sort -rn | head -n " count)
    printf "%7.1f  all %d compilations\n", sum, length(seconds)
  }' "$log"
