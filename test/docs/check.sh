#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh REPOSITORY WORK DIGITS [CMAKE ARGUMENTS…]: every block of C++ in the README and in docs/ is a program that compiles without a
# warning. Its first lines may say `// needs: mpi onednn lapack io cuda eigen armadillo torch` (skipped where one is missing) and `// run` (it is
# also run, alone in an empty folder, and must exit with 0), or `// run with: FOLDER` (it finds images of digits there,
# drawn by the program DIGITS). Commands of ./run in blocks of shell exist.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
repository=$(cd "$1" && pwd) work=$(cd "$2" && pwd) digits=$3
shift 3
rm -rf "$work/new" "$work/run"
mkdir -p "$work/new/blocks" "$work/new/batches" "$work/blocks" "$work/batches" "$work/run"

commands=$("$repository/run" help | awk '/^  [a-z]/ { printf " %s ", $1 }')
cd "$repository"
(find README.md docs -name '*.md' | LC_ALL=C sort |
  xargs awk -v out="$work/new/blocks" -v commands="$commands" -f "$here/extract.awk") > "$work/complaints"
# Links lead somewhere, and every page is in the index of its folder.
for page in README.md docs/*.md docs/*/*.md; do
  [ -f "$repository/$page" ] || continue
  # shellcheck disable=SC2016
  sed -n '/^[ \t]*```/,/^[ \t]*```/!p' "$repository/$page" | grep -o '](\([^)#]*\)' | sed 's/^](//' |
    grep -v -e '^[a-z]*:' -e '^$' | while read -r target; do
      [ -e "$repository/$(dirname "$page")/$target" ] || echo "$page: a link to $target, which does not exist"
    done
  case $page in
    docs/README.md | README.md) ;;
    */*/README.md) grep -q "(${page#docs/})" "$repository/docs/README.md" || echo "$page: not in docs/README.md" ;;
    *)
      index=$(dirname "$page")/README.md
      grep -q "(${page##*/})" "$repository/$index" 2>/dev/null || echo "$page: not in $index"
      ;;
  esac
done >> "$work/complaints"
# Programs that run, need no other library, and end with a return of their own are compiled a dozen at a time: first
# those that include nothing of the library but its rules, then the others.
grep -L -e '^// needs' -e '^// run with' "$work"/new/blocks/*.cpp | xargs -r grep -l '^// run' |
  xargs -r grep -l -e '^  return' -e '^int main() { return' | xargs -r grep -LE '^template <>|^namespace|^#define' |
  LC_ALL=C sort > "$work/batched"
xargs -r grep -l '^#include <dovetail/optim.hpp>' < "$work/batched" | xargs -r grep -L '^#include <dovetail/.*/' |
  LC_ALL=C sort > "$work/rules"
LC_ALL=C comm -23 "$work/batched" "$work/rules" > "$work/others"
split -l 12 -d "$work/rules" "$work/new/batches/batch"
split -l 12 -d "$work/others" "$work/new/batches/others"
for batch in "$work"/new/batches/*; do
  xargs awk -f "$here/batch.awk" < "$batch" > "$batch.cpp"
done
# Only what changed is compiled again.
for kind in blocks batches; do
  for old in "$work/$kind"/*.cpp; do
    [ -e "$work/new/$kind/${old##*/}" ] || rm -f "$old"
  done
  for new in "$work/new/$kind"/*.cpp; do
    cmp -s "$new" "$work/$kind/${new##*/}" || cp "$new" "$work/$kind/"
  done
done
count=$(find "$work/blocks" -name '*.cpp' | wc -l)

cmake -S "$here/programs" -B "$work/build" -G Ninja -DDOVETAIL_REPOSITORY="$repository" -DWORK="$work" "$@" \
  > "$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
grep '^-- skipped' "$work/configure.log" | sed 's/^-- //' || true
failed=0
cmake --build "$work/build" -- -k 0 > "$work/build.log" 2>&1 || failed=1
grep -v -e '^\[[0-9]*/[0-9]*\]' -e '^ninja: no work' "$work/build.log" | head -n 150 || true
cat "$work/complaints"
[ ! -s "$work/complaints" ] || failed=1

program_of() {  # the command that runs a block
  batch=$(grep -l "/$1\.cpp$" "$work"/new/batches/batch?? "$work"/new/batches/others?? || true)
  if [ -n "$batch" ]; then echo "$work/build/${batch##*/} $1"; else echo "$work/build/$1"; fi
}
for block in $(grep -l '^// run' "$work"/blocks/*.cpp 2>/dev/null || true); do
  name=$(basename "$block" .cpp)
  program=$(program_of "$name")
  [ -x "${program%% *}" ] || continue
  mkdir -p "$work/run/$name"
  images=$(sed -n 's/^\/\/ run with: \([a-z]*\)$/\1/p' "$block")
  [ -z "$images" ] || "$digits" "$work/run/$name/$images" 1024 100
  status=0
  (cd "$work/run/$name" && timeout 120 $program > output 2>&1 < /dev/null) || status=$?
  if [ "$status" != 0 ]; then
    failed=1
    echo "FAILED   $name exited with $status:"
    sed 's/^/    /' "$work/run/$name/output" | tail -n 20
  else
    echo "ran      $name"
  fi
done
# Nothing may be left out without a word.
for block in "$work"/blocks/*.cpp; do
  name=$(basename "$block" .cpp)
  program=$(program_of "$name")
  [ -x "${program%% *}" ] || grep -q "skipped  $name:" "$work/configure.log" || { failed=1; echo "FAILED   $name"; }
done
echo "$count blocks of C++, $(grep -c . "$work/complaints" || true) complaints"
[ "$count" -gt 0 ] && [ "$failed" = 0 ]
