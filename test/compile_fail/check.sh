#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh REPOSITORY NAME COMPILER [FLAGS…]: what must not compile does not, and the first line of the error says why.
# Each case is a NAME.cpp in this folder. It compiles as it is; with -DFAIL it does not, and the first line that has
# "error:" matches the extended regular expression of the comment `// first error: …` (`// first error gcc: …` or
# `clang:` where the compilers differ). So a case cannot fail for another reason than the one it is about. A case of
# several mistakes says `// mistakes: N`, and is compiled with -DFAIL=1 to -DFAIL=N; what is said as `// first error 2:`
# or `// first error 2 gcc:` is expected of that one. Reading the headers takes longer than the cases: as they are, all
# are compiled in one source, each in a namespace, and so are all mistakes in another, and in reverse in a third. Only a
# mistake that does not get its error there, or another one in reverse, because the compiler has said the same of an
# earlier one or stopped, is compiled by itself. Clang has read the headers beforehand, once for all of these; GCC would
# take as long to write them down as it saves.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$1 name=$2 compiler=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/one.sh" <<'END'
case=${1%:*} mistake=${1##*:} repository=$2 name=$3 compiler=$4 work=$5
shift 5
base=$(basename "$case" .cpp)
log=$work/$base.$mistake.log
exec > "$work/$base.$mistake.report"  # not one stream: reports of cases in parallel must not mix
expected=
for of in "$mistake $name" "$mistake" "$name"; do
  [ -n "$expected" ] || expected=$(sed -n "s|^// first error $of: ||p" "$case")
done
[ -n "$expected" ] || expected=$(sed -n 's|^// first error: ||p' "$case")
[ "$mistake" = 1 ] || base="$base ($mistake)"
fail() {
  echo "FAILED   $base: $1"
  sed 's/^/    /' "$log" | cut -c 1-400 | head -n 20
  exit 0
}
# shellcheck disable=SC2046
compile() {
  LC_ALL=C "$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -I"$repository/include" $(cat "$work/read_before") "$@" \
    "$case" > "$log" 2>&1
}
case $compiler in  # the first error is all that is looked at
  *clang*) given=-ferror-limit=1 ;;
  *) given=-fmax-errors=1 ;;
esac
: > "$log"
if [ "$base" = all ]; then
  compile -Werror "$@" && echo "ok       all compile without FAIL" || fail "a case does not compile without FAIL"
  exit 0
fi
[ -n "$expected" ] || fail "has no comment '// first error: …'"
first=$(sed -n "s|^$(basename "$case")@$mistake	||p" "$work/first_errors")
if [ -n "$first" ] && printf '%s\n' "$first" | grep -Eq -e "$expected"; then
  echo "ok       $base: $(printf '%s' "$first" | sed 's|.*error: ||' | cut -c 1-300)"
  exit 0
fi
echo "$base" >> "$work/alone"
compile "$given" -DFAIL="$mistake" "$@" && fail "must not compile with FAIL=$mistake"
first=$(grep -m 1 'error:' "$log" || true)
printf '%s\n' "$first" | grep -Eq -e "$expected" || fail "the first error does not match '$expected'"
echo "ok       $base: $(printf '%s' "$first" | sed 's|.*error: ||' | cut -c 1-300)"
END
find "$here" -name '*.cpp' | LC_ALL=C sort > "$work/cases"
xargs grep -h '^#include' < "$work/cases" | sort -u > "$work/headers.hpp"
{
  cat "$work/headers.hpp"
  while read -r case; do
    echo "namespace $(basename "$case" .cpp) {"
    echo "#line 1 \"$case\""
    sed 's/^#include.*//' "$case"
    echo "}"
  done < "$work/cases"
} > "$work/all.cpp"
while read -r case; do
  mistakes=$(sed -n 's|^// mistakes: ||p' "$case")
  seq 1 "${mistakes:-1}" | sed "s|^|$case:|"
done < "$work/cases" > "$work/mistakes"
# together MISTAKES: all of them in one source.
together() {
  cat "$work/headers.hpp"
  while read -r mistake; do
    case=${mistake%:*} mistake=${mistake##*:}
    base=$(basename "$case" .cpp)
    echo "#define FAIL $mistake"
    echo "namespace ${base}_$mistake {"
    echo "#line 1 \"$base.cpp@$mistake\""
    sed 's/^#include.*//' "$case"
    echo "}"
    echo "#undef FAIL"
  done < "$1"
}
LC_ALL=C sort -r "$work/mistakes" > "$work/mistakes_reversed"
together "$work/mistakes" > "$work/forwards.cpp"
together "$work/mistakes_reversed" > "$work/backwards.cpp"
case $compiler in
  *clang*)
    unlimited="-ferror-limit=0 -fno-caret-diagnostics" read_before="-include-pch $work/headers.pch"
    "$compiler" -std=c++20 -Wall -Wextra -Werror -I"$repository/include" "$@" -x c++-header "$work/headers.hpp" \
      -o "$work/headers.pch"
    ;;
  *) unlimited="-fmax-errors=0 -fno-diagnostics-show-caret" read_before= ;;
esac
echo "$read_before" > "$work/read_before"
# first_errors ORDER FLAGS…: the first error of each mistake in that source.
first_errors() {
  order=$1
  shift
  # shellcheck disable=SC2086
  if LC_ALL=C "$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -I"$repository/include" $read_before $unlimited "$@" \
    "$work/$order.cpp" > "$work/$order.log" 2>&1; then
    echo "FAILED   all mistakes together compile"
    return 1
  fi
  awk -f "$here/first_errors.awk" "$work/mistakes" "$work/$order.log" | LC_ALL=C sort > "$work/$order.first"
}
first_errors forwards "$@" & forwards=$!
first_errors backwards "$@" & backwards=$!
sh "$work/one.sh" "$work/all.cpp:1" "$repository" "$name" "$compiler" "$work" "$@"
wait $forwards
wait $backwards
# What the compiler had said of an earlier mistake, it does not say again: an error is the first one of a mistake if it
# is so in both orders.
LC_ALL=C comm -12 "$work/forwards.first" "$work/backwards.first" > "$work/first_errors"
# An error that is about no mistake could be the first of any.
if grep -hq '^nobody' "$work/forwards.first" "$work/backwards.first"; then
  echo "each mistake is compiled by itself: it is not known which one this is about:"
  grep -h '^nobody' "$work/forwards.first" "$work/backwards.first" | sort -u | cut -c 1-300
  : > "$work/first_errors"
fi
xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$work/one.sh" {} "$repository" "$name" "$compiler" "$work" "$@" \
  < "$work/mistakes"
cat "$work"/*.report
ok=$(cat "$work"/*.report | grep -c '^ok' || true)
failed=$(cat "$work"/*.report | grep -c '^FAILED' || true)
alone=$(grep -c . "$work/alone" 2>/dev/null || true)
echo "$((ok + failed - 1)) cases with $compiler, ${alone:-0} by themselves, $failed failed"
[ "$failed" = 0 ] && [ "$ok" -gt 1 ]
