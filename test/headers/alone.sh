#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# alone.sh REPOSITORY COMPILER FOUND [FLAGS…]: every header compiles alone and without a warning. FOUND lists the
# components whose dependency this machine has; headers that need another one are listed as skipped. A *.inc.hpp is the
# inside of another header, compiled once per instruction set, and is checked there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$1 compiler=$2 found=" $3 "
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$repository/include"

find dovetail -name '*.hpp' | LC_ALL=C sort | xargs awk -f "$here/needs.awk" > "$work/needs"
: > "$work/headers"
while IFS="$(printf '\t')" read -r header needs; do
  case $header in *.inc.hpp) continue ;; esac
  missing=
  for component in $needs; do
    case $found in *" $component "*) ;; *) missing="$missing $component" ;; esac
  done
  if [ -n "$missing" ]; then
    echo "skipped  $header: needs$missing, not found or not for this compiler"
  else
    echo "$header" >> "$work/headers"
  fi
done < "$work/needs"

cat > "$work/one.sh" <<'END'
header=$1 compiler=$2 work=$3
shift 3
log=$work/$(echo "$header" | tr / _).log
printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$log.cpp"
# What other projects compile with. Headers without SYSTEM must be clean for them as well.
strict="-Wshadow -Wdouble-promotion -Wold-style-cast"
case $compiler in *clang*) ;; *) strict="$strict -Wuseless-cast" ;; esac
case $header in dovetail/comm/mpi*) ;; *) strict="$strict -fno-rtti" ;; esac  # Boost.MPI asks for typeid
"$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Werror $strict -I. "$@" "$log.cpp" > "$log" 2>&1 ||
  { echo "FAILED   $header"; sed 's/^/    /' "$log" | head -n 20; } > "$log.report"
END
xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$work/one.sh" {} "$compiler" "$work" "$@" < "$work/headers"
for report in "$work"/*.report; do
  [ ! -e "$report" ] || cat "$report"
done
count=$(wc -l < "$work/headers")
failed=$(find "$work" -name '*.report' | wc -l)
echo "$count headers with $compiler, $failed failed"
[ "$failed" = 0 ] && [ "$count" -gt 0 ]
