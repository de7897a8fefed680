#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# alone.sh REPOSITORY COMPILER FOUND HOW [FLAGS…]: every header compiles without a warning, HOW alone, or together with
# its folder, which takes an eighth of the time and finds what is not about missing includes. FOUND lists the components
# whose dependency this machine has; headers that need another one are listed as skipped. A *.inc.hpp is the inside of
# another header, compiled once per instruction set, and is checked there.
# Alone, headers share a compilation where one includes all of those before it anyway (chains.awk). Clang has read the
# standard library beforehand, which is most of the time of a header alone: that a header includes what it uses of it is
# a rule of the house (std_includes.awk), also for a *.inc.hpp with #pragma once. And for the headers that include
# `common`, as most rules do, it has read that one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$1 compiler=$2 found=" $3 " how=$4
shift 4
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
unit=$1 compiler=$2 work=$3
shift 3
log=$work/$unit.log
# Twice: a header that is included again says nothing more.
{ cat "$work/units/$unit"; cat "$work/units/$unit"; } | sed 's/.*/#include <&>/' > "$log.cpp"
# What other projects compile with. Headers without SYSTEM must be clean for them as well.
strict="-Wshadow -Wdouble-promotion -Wold-style-cast"
case $compiler in *clang*) ;; *) strict="$strict -Wuseless-cast" ;; esac
case $unit in
  mpi_*) ;;  # Boost.MPI asks for typeid
  *)
    strict="$strict -fno-rtti"
    read_before=$work/${unit%%_*}.pch
    [ ! -e "$read_before" ] || strict="$strict -include-pch $read_before"
    ;;
esac
"$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Werror $strict -I. "$@" "$log.cpp" \
  > "$log" 2>&1 ||
  { echo "FAILED   $unit: $(tr '\n' ' ' < "$work/units/$unit")"; sed 's/^/    /' "$log" | head -n 20; } > "$log.report"
END
common=dovetail/optim/named_optimizer.hpp
case $how:$compiler in
  alone:*clang*)
    find dovetail -name '*.hpp' -print0 | xargs -0 grep -hE '^#include <[a-z_]+>' | LC_ALL=C sort -u \
      > "$work/standard.hpp"
    { cat "$work/standard.hpp"; echo "#include <$common>"; } > "$work/common.hpp"
    for read_before in standard common; do
      "$compiler" -std=c++20 -fno-rtti -I. "$@" -x c++-header "$work/$read_before.hpp" -o "$work/$read_before.pch"
    done
    ;;
esac
mkdir "$work/units"
if [ "$how" = together ]; then
  while read -r header; do
    case $header in
      dovetail/comm/mpi*) unit=mpi_all ;;
      dovetail/*/*) unit=${header#dovetail/} unit=folder_${unit%%/*} ;;
      *) unit=all ;;
    esac
    echo "$header" >> "$work/units/$unit"
  done < "$work/headers"
else
  xargs awk -v common=$common -f "$here/chains.awk" < "$work/headers" > "$work/chains"
  while IFS="$(printf '\t')" read -r kind chain; do
    echo "$chain" | tr ' ' '\n' > "$work/units/${kind}_$(echo "${chain##* }" | tr / _)"
  done < "$work/chains"
fi
find "$work/units" -type f | sed 's|.*/||' | LC_ALL=C sort |
  xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$work/one.sh" {} "$compiler" "$work" "$@"
for report in "$work"/*.report; do
  [ ! -e "$report" ] || cat "$report"
done
count=$(wc -l < "$work/headers")
failed=$(find "$work" -name '*.report' | wc -l)
units=$(find "$work/units" -type f | wc -l)
echo "$count headers with $compiler, $how, in $units compilations, $failed failed"
[ "$failed" = 0 ] && [ "$count" -gt 0 ]
