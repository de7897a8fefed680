#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh REPOSITORY BUILD: what `./run aarch64` does with a tree that the preset aarch64 has built. The headers, the
# chosen tests in the emulator, and the bits of test/aarch64/bits.cpp beside those of this machine's own processor. All is
# done whatever fails, and summed up at the end.
set -eu
repository=$(cd "$1" && pwd) build=$(cd "$2" && pwd)
here=$repository/test/aarch64 work=$build/check
compiler=aarch64-linux-gnu-g++
mkdir -p "$work"
failed=
: > "$work/summary"
tell() { echo "$*" >> "$work/summary"; }

echo "== headers that need no dependency, compiled by $compiler"
if "$repository/test/headers/alone.sh" "$repository" $compiler "" together > "$work/headers" 2>&1; then how=ok; else how=FAILED failed="$failed headers"; fi
grep -v '^skipped' "$work/headers" || :
tell "headers  $how: $(tail -n 1 "$work/headers"); $(grep -c '^skipped' "$work/headers") need a library for AArch64 and were left out"

echo "== tests in the emulator"
rc=0
ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$(nproc 2>/dev/null || echo 2)" > "$work/tests" 2>&1 || rc=$?
sed -n '/Start/d; /Test *#/p; /tests passed/p' "$work/tests"
[ "$rc" = 0 ] || { failed="$failed tests"; cat "$work/tests"; }
# ctest counts skipped tests as passed.
ran=$(grep -c '^ *[0-9]*/[0-9]* Test .* Passed' "$work/tests" || :)
broken=$(grep '^ *[0-9]*/[0-9]* Test .*' "$work/tests" | grep -vc 'Passed\|Skipped' || :)
[ "$ran" -gt 0 ] || failed="$failed tests(none)"
if [ "$rc" = 0 ]; then how=ok; else how=FAILED; fi
tell "tests    $how: $ran passed, $broken failed"
sed -n 's|^ *[0-9]*/[0-9]* Test *#[0-9]*: \([^ ]*\) .*Skipped.*|\1|p' "$work/tests" > "$work/skipped"
while read -r name; do
  reason=$(sed -n "s/^$name  *//p" "$here/left_out.txt")
  [ -n "$reason" ] || { reason="no reason is given in test/aarch64/left_out.txt"; failed="$failed $name(left out)"; }
  tell "left out $name: $reason"
done < "$work/skipped"

sed -n 's/^case /left out case /p' "$here/left_out.txt" >> "$work/summary"

# As who has no CMake would: the plain -O2 of this machine, and of the other one without its flag.
echo "== the bits of both processors"
plainly() {  # COMPILER OUT FLAGS…
  plain=$1 out=$2
  shift 2
  "$plain" -std=c++20 -O2 -I"$repository/include" -DLEVEL=bits -DLEVEL_STEPS=20 "$@" "$here/bits.cpp" "$repository/test/optim/levels_run.cpp" \
    -pthread -o "$out"
}
emulated() { qemu-aarch64-static -L /usr/aarch64-linux-gnu "$@"; }
if plainly g++ "$work/bits_here" && "$work/bits_here" > "$work/here.txt" && emulated "$build/test/aarch64/aarch64_bits" > "$work/there.txt"; then
  awk -f "$here/compare.awk" "$work/here.txt" "$work/there.txt" > "$work/bits" || failed="$failed bits"
  cat "$work/bits" >> "$work/summary"
else
  failed="$failed bits(not computed)"
fi
if plainly $compiler "$work/bits_fused" && emulated "$work/bits_fused" > "$work/fused.txt"; then
  awk -f "$here/compare.awk" "$work/here.txt" "$work/fused.txt" > "$work/bits_fused.said" || :
  tell "for information, a build without CMake and without -ffp-contract=off:"
  sed 's/^DIFFERS /differs /; s/^/    /' "$work/bits_fused.said" >> "$work/summary"
else
  failed="$failed bits(without the flag, not computed)"
fi

echo "== summary"
cat "$work/summary"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
