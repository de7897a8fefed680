#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# first_program.sh REPOSITORY WORK COMPILER [FLAGS…]: the first program of the README, as it is printed there and compiled
# as docs/building.md says without CMake, learns what it promises on the data that it names: progress on the way, and at
# least 85 % of the test images in its three epochs.
set -eu
repository=$1 work=$2 compiler=$3
shift 3
mkdir -p "$work"
awk '/^```cpp/ { inside = 1; next } /^```/ && inside { exit } inside' "$repository/README.md" > "$work/first.cpp"
folder=$(sed -n 's/.*"\(\/[^"]*\)".*/\1/p' "$work/first.cpp" | head -n 1)
[ -n "$folder" ] || { echo "FAILED   the first program of the README names no folder of images"; exit 1; }
for file in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
  [ -e "$folder/$file" ] || [ -e "$folder/$file.gz" ] ||
    { echo "skipped: there is no $file in $folder (Debian: dataset-fashion-mnist)"; exit 0; }
done
"$compiler" -std=c++20 -O2 -Wall -Wextra -Wpedantic -Wconversion -Werror -I"$repository/include" "$work/first.cpp" \
  -o "$work/first" -pthread -fopenmp "$@"
timeout 280 "$work/first" > "$work/output" || { echo "FAILED   it exited with $?"; cat "$work/output"; exit 1; }
cat "$work/output"
awk '/^step [0-9]+\/354 / { ++lines } /^test accuracy/ { accuracy = $3 }
  END {
    if (!lines) { print "FAILED   no progress is shown"; exit 1 }
    if (accuracy < 85) { print "FAILED   expected a test accuracy of 85 %"; exit 1 }
  }' "$work/output"
